"""How hard one download tries, and when it is left for the next run. Pure: no clock, no sockets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.download.redirects import ForbiddenUrl
from pipeline.download.resumable_get import DownloadError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """The limits of one download within one run.

    `max_attempts` counts responses in a row that brought no new byte; a transfer that makes progress never
    runs out of attempts. While the host does not respond at all, only `max_unreachable_s` counts. The same
    bytes fetched `conclusive_fetches` times, or `max_full_fetches` fetches in all, are enough for one round.
    A transfer slower than `min_bytes_per_s` over `stall_window_s` is cut off and resumed.
    """

    max_bytes: int = 2 * 1024**3
    max_attempts: int = 6
    max_unreachable_s: float = 60.0
    conclusive_fetches: int = 4
    max_full_fetches: int = 7
    stall_window_s: float = 10.0
    min_bytes_per_s: float = 1000.0
    response_timeout_s: float = 20.0
    initial_backoff_s: float = 0.25
    max_backoff_s: float = 5.0

    @classmethod
    def from_settings(cls, settings: Settings) -> DownloadLimits:
        """Return the limits of a run, whose waits scale with its poll interval."""
        interval_s = settings.poll_interval
        return cls(
            max_bytes=settings.max_video_bytes, initial_backoff_s=interval_s / 40, max_backoff_s=interval_s
        )


@dataclass(slots=True)
class RetryState:
    """What one row's download has been through. Times come in as arguments."""

    limits: DownloadLimits
    random: Callable[[], float]
    attempts: int = 0
    furthest_bytes: int = 0
    unreachable_since: float | None = None
    unreachable: bool = False
    requested_wait_s: float = 0.0
    fetch_counts: Counter[str] = field(default_factory=Counter)

    def record_error(self, error: Exception) -> None:
        """Take in an error. A forbidden URL is not going to improve, so it counts more."""
        self.unreachable = isinstance(error, Unreachable)
        if isinstance(error, ForbiddenUrl):
            self.attempts += self.limits.max_attempts // 4
        elif isinstance(error, DownloadError) and error.retry_after_s:
            self.requested_wait_s = error.retry_after_s

    def record_full_fetch(self, digest: str) -> bool:
        """Count a full fetch whose bytes are damaged; True when another one now would bring nothing new."""
        self.fetch_counts[digest] += 1
        self.furthest_bytes, self.unreachable = 0, False
        return (
            self.fetch_counts[digest] >= self.limits.conclusive_fetches
            or self.fetch_counts.total() >= self.limits.max_full_fetches
        )

    def forget_full_fetch(self, digest: str, staged_bytes: int) -> None:
        """Take a full fetch back: its bytes are still staged, and will be judged again."""
        self.fetch_counts[digest] -= 1
        self.furthest_bytes = staged_bytes

    def next_delay_s(self, staged_bytes: int, now: float) -> float | None:
        """Seconds until the next try, with jitter; None when enough was tried for this run."""
        if staged_bytes > self.furthest_bytes:
            self.furthest_bytes, self.attempts, self.unreachable_since = staged_bytes, 0, None
        else:
            self.attempts += 1
        if not self.unreachable:
            self.unreachable_since = None
        elif self.unreachable_since is None:
            self.unreachable_since = now
        if self.unreachable_since is not None:
            if now - self.unreachable_since >= self.limits.max_unreachable_s:
                return None
        elif self.attempts >= self.limits.max_attempts:
            return None
        longest_s = min(
            self.limits.max_backoff_s, self.limits.initial_backoff_s * 2.0 ** min(self.attempts, 30)
        )
        delay_s = max(
            longest_s * (0.5 + self.random() / 2), min(self.requested_wait_s, self.limits.max_backoff_s)
        )
        self.requested_wait_s = 0.0
        return delay_s
