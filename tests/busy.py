"""How much slower than on an idle machine things are at this moment, for the few tests of a promised time."""

from __future__ import annotations

import time

_WORK_S = 0.1


def busy_factor() -> float:
    """Return how many seconds this process waits for a second of computing: 1.0 on an idle machine."""
    began, computed_at = time.monotonic(), time.process_time()
    while time.process_time() - computed_at < _WORK_S:
        pass
    return max(1.0, (time.monotonic() - began) / _WORK_S)
