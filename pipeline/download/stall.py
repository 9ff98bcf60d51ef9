"""When a transfer is too slow to wait for. Pure: byte counts and times in, a deadline out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class StallDetector:
    """Demand `min_bytes_per_s` on average over each `window_s`; a total time is never demanded.

    A large file on a slow line may take hours; a connection that has gone quiet is given up after one
    window, which is cheap, since what has arrived is kept.
    """

    window_s: float
    min_bytes_per_s: float
    window_started_at: float
    received_bytes: int = 0

    @property
    def deadline(self) -> float:
        """The time at which the transfer counts as stalled unless more arrives."""
        return self.window_started_at + self.window_s

    def add(self, count: int, now: float) -> bool:
        """Count bytes; True when they earned a new window, and with it a new deadline.

        A window is renewed at most four times in its own length: moving a timer costs more than a chunk.
        """
        self.received_bytes += count
        if (
            self.received_bytes < self.min_bytes_per_s * self.window_s
            or now - self.window_started_at < self.window_s / 4
        ):
            return False
        self.start_window(now)
        return True

    def start_window(self, now: float) -> None:
        self.window_started_at, self.received_bytes = now, 0
