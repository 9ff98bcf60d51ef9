"""Downloads with either event loop, each beside curl in the same turn: is uvloop worth it for bulk?

`python -m benchmarks.live_downloads` prints the numbers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Any, Final

from benchmarks.live import HERE, TIMEOUT_S

_UVLOOP: Final = "import asyncio, uvloop; asyncio.set_event_loop_policy(uvloop.EventLoopPolicy()); "
_MEASURE: Final = "from benchmarks.downloads import main; main()"


def run(files: int = 60, mib: int = 16, rounds: int = 3, *, uvloop: bool = True) -> dict[str, Any]:
    """Return seconds and MB/s by event loop (with `uvloop` both) and way to download."""
    loops = {"asyncio": _MEASURE}
    if uvloop and find_spec("uvloop"):
        loops["uvloop"] = _UVLOOP + _MEASURE
    words = ["--files", str(files), "--mib", str(mib), "--rounds", str(rounds), "--json"]
    return {
        "files": files,
        "mib": mib,
        "loops": {loop: _run_downloads(code, words) for loop, code in loops.items()},
    }


def _run_downloads(code: str, words: list[str]) -> dict[str, dict[str, float]]:
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,  # curl shows its progress whatever it is told
        text=True,
        cwd=HERE.parent,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    rows: dict[str, dict[str, float]] = json.loads(done.stdout)
    return rows


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
