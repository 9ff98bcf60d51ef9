"""The sandbox's clocks: one that never steps, and the vendor's, which may be set wrong. Knows no HTTP."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Final

# Monotonic, so that a test or an administrator who sets this machine's clock does not set the vendor's.
_EPOCH_OFFSET_S: Final = time.time() - time.monotonic()


def now() -> float:
    """Seconds since the epoch, by a clock that never steps."""
    return _EPOCH_OFFSET_S + time.monotonic()


class VendorClock:
    """The vendor's wall clock: `offset_s` seconds ahead of the real time; it may be set at any moment."""

    def __init__(self, offset_s: float = 0.0) -> None:
        self.offset_s = offset_s

    def now(self) -> float:
        """Seconds since the epoch, as the vendor believes."""
        return now() + self.offset_s

    def timestamp(self, real_s: float) -> str:
        """A moment of `now()` as the vendor writes it."""
        return iso_timestamp(real_s + self.offset_s)

    def http_date(self) -> str:
        """The `Date` header of an answer that is sent now."""
        return formatdate(self.now(), usegmt=True)


def iso_timestamp(seconds: float) -> str:
    """Seconds since the epoch as the vendor writes times: UTC, milliseconds, Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
