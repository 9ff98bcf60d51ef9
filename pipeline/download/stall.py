"""When a transfer is too slow to wait for. Pure: byte counts and times in, a deadline out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class StallMeter:
    """Demand `floor_bytes_s` on average over each `window_s`; a total time is never demanded.

    A large file on a slow line may take hours; a connection that has gone quiet is given up after one
    window, which is cheap, since what has arrived is kept.
    """

    window_s: float
    floor_bytes_s: float
    since: float
    arrived_bytes: int = 0

    @property
    def deadline(self) -> float:
        """The time at which the transfer counts as stalled unless more arrives."""
        return self.since + self.window_s

    def add(self, count: int, now: float) -> bool:
        """Count bytes; True when they earned a new window, and with it a new deadline.

        A window is renewed at most four times in its own length: moving a timer costs more than a chunk.
        """
        self.arrived_bytes += count
        if self.arrived_bytes < self.floor_bytes_s * self.window_s or now - self.since < self.window_s / 4:
            return False
        self.renew(now)
        return True

    def renew(self, now: float) -> None:
        """Begin a new window."""
        self.since, self.arrived_bytes = now, 0
