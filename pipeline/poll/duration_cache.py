"""What earlier runs on this machine learned of rendering times, one small file an API host.

A cache and nothing more: whatever is wrong with it, the run goes on with an empty one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir


def duration_cache_path(base_url: str) -> Path:
    """Return where durations seen at this API are kept."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", base_url.partition("://")[2])[:100]
    return Path(user_cache_dir("veobatch", appauthor=False)) / "durations" / f"{name}.json"


def read_duration_cache(path: Path) -> dict[str, Any]:
    """Return what was kept, or nothing."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def write_duration_cache(path: Path, durations: dict[str, Any]) -> None:
    """Replace what was kept; a disk that will not have it is no trouble."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(durations), encoding="utf-8")
        part.replace(path)
