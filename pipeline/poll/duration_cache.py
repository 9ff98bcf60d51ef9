"""What earlier runs on this machine learned of rendering times, one small file an API host.

A cache and nothing more: whatever is wrong with it, the run goes on with an empty one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir

from pipeline.net.json_cache import read_json


def duration_cache_path(base_url: str) -> Path:
    """Return where durations seen at this API are kept."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", base_url.partition("://")[2])[:100]
    return Path(user_cache_dir("veobatch", appauthor=False)) / "durations" / f"{name}.json"


def read_duration_cache(path: Path) -> dict[str, Any]:
    """Return what was kept, or nothing."""
    value = read_json(path)
    return value if isinstance(value, dict) else {}
