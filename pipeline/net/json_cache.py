"""Small JSON files that only save time: whatever is wrong with one, it counts as absent. Blocking."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def read_json(path: Path) -> object:
    """Return the value in the file, None when there is none that can be read."""
    try:
        value: object = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value


def write_json(path: Path, value: object) -> None:
    """Replace the file's value, atomically; a folder that cannot be written is ignored."""
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        text = json.dumps(value)
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except (OSError, ValueError, RecursionError):
        with contextlib.suppress(OSError):
            part.unlink()
