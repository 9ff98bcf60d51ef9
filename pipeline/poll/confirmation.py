"""Which answers about a generation count at once, and which need a second one. Pure.

Money hangs on a final answer: an `error` may buy another generation, a `completed` without a URL gives up
one that is paid for, as one that names only some of several clips' URLs does with the others. Vendors flap,
and the URL may come an answer later, so none of them counts after a single poll. The vendor's schema
requires an `id` in each status: an error without one may be a gateway's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from pipeline.client.responses import Phase, merged_urls
from pipeline.model import Failure
from pipeline.plan import NO_VIDEO

if TYPE_CHECKING:
    from pipeline.client.responses import GenerationStatus

ERROR_GAP_INTERVALS: Final = 1.0
"""How far apart the two polls are that both have to say `error`, in poll intervals."""

URL_WAIT_INTERVALS: Final = 18.0
"""How long a completed generation may be without a URL, in poll intervals: three minutes at 10 s."""

LONG_ERROR_GAP_INTERVALS: Final = URL_WAIT_INTERVALS
"""How far apart two errors are in place of `ERROR_GAP_INTERVALS` where another process has polled before, or
where an error does not name its generation."""

MIN_LONG_POLLS: Final = 6
"""What has to last for minutes has to be answered this often, too: a machine that was suspended between two
polls has seen nothing of the time between them."""

MIN_ERROR_INTERVAL_S: Final = 10.0
STAND_IN_INTERVAL_S: Final = 1.0
"""A vendor's trouble passes no sooner where it is polled more often: between errors, an interval counts as
ten seconds at least. One of less than a second is for a stand-in, whose time goes faster."""


def error_interval_s(interval_s: float) -> float:
    """Return what a poll interval counts as where errors are concerned, in seconds."""
    return interval_s if interval_s < STAND_IN_INTERVAL_S else max(interval_s, MIN_ERROR_INTERVAL_S)


class Confirmed(NamedTuple):
    """The generation has ended, as `status` says."""

    status: GenerationStatus


class Unconfirmed(NamedTuple):
    """A final answer that another poll has to confirm, in `wait_s` seconds."""

    wait_s: float


class StillRunning(NamedTuple):
    """The generation has not ended."""


Finality = Confirmed | Unconfirmed | StillRunning


@dataclass(slots=True)
class _Observed:
    """What unconfirmed answers have said so far; times on the run's clock."""

    error_at: float | None = None
    named_error_at: float | None = None
    error: GenerationStatus | None = None
    error_polls: int = 0
    completed_at: float | None = None
    urlless_polls: int = 0
    partial: GenerationStatus | None = None
    """`completed`, with all the URLs that were named so far, while a clip has none."""


class Confirmations:
    """The answers of one run that wait for another one."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._error_interval_s = error_interval_s(interval_s)
        self._observed: dict[str, _Observed] = {}
        self._taken_over: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._observed

    def on_taken_over(self, key: str) -> None:
        """Note that another process may have polled the generation, and ended before it wrote down an answer.

        That may have been `completed`, which is charged: an error has to be confirmed for longer.
        """
        self._taken_over.add(key)

    def forget(self, key: str) -> None:
        self._observed.pop(key, None)
        self._taken_over.discard(key)

    def last_error(self, key: str) -> GenerationStatus | None:
        """Return the unconfirmed error of a row, unless it may have been completed or has gone on since.

        A vendor that knows a generation no more, for minutes, after it called it failed has confirmed that.
        An error that does not name the generation says nothing of it.
        """
        observed = self._observed.get(key)
        if key in self._taken_over or observed is None or observed.completed_at is not None:
            return None
        return None if observed.named_error_at is None else observed.error

    def confirm(self, key: str, status: GenerationStatus, now: float, *, completed_before: bool) -> Finality:
        """Return what an answer proves, by this one and those before it.

        `completed_before`: an earlier run has seen that the generation is completed. Once completed, it is
        paid for: no later `error` makes it anything but a video whose URL is awaited.
        """
        observed = self._observed.get(key)
        if status.phase is Phase.COMPLETED:
            return self._confirm_urls(key, status, now)
        completed = completed_before or (observed is not None and observed.completed_at is not None)
        # Called completed once, it is charged: an error now buys no other generation, the URL is waited for.
        if status.failure is not None and (completed or status.failure.code == NO_VIDEO):
            return self._await_url(key, status, now)
        if status.phase is not Phase.FAILED:
            # It goes on: the error before was a replica's, and a later one has to be confirmed anew.
            if observed is not None:
                self._observed[key] = _Observed(
                    completed_at=observed.completed_at,
                    urlless_polls=observed.urlless_polls,
                    partial=observed.partial,
                )
            return StillRunning()
        return self._await_second_error(key, status, now)

    def _confirm_urls(self, key: str, status: GenerationStatus, now: float) -> Finality:
        """A URL is there, which no flapping replica invents; where another clip has none, it is awaited."""
        observed = self._observed.get(key)
        if observed is not None and observed.partial is not None:
            urls = merged_urls(observed.partial.urls, status.urls)
            status = replace(status, video_urls=urls)
        if "" not in status.video_urls:
            self.forget(key)
            return Confirmed(status)
        self._observed.setdefault(key, _Observed()).partial = status
        return self._await_url(key, status, now)

    def _await_url(self, key: str, status: GenerationStatus, now: float) -> Finality:
        observed = self._observed.setdefault(key, _Observed())
        if observed.completed_at is None:
            observed.completed_at = now
        observed.urlless_polls += 1
        waited_s = now - observed.completed_at
        # Given up, the row fails with NO_VIDEO, which no option buys again: the video is paid for.
        if waited_s < URL_WAIT_INTERVALS * self._interval_s or observed.urlless_polls < MIN_LONG_POLLS:
            return Unconfirmed(self._interval_s)
        self.forget(key)
        if observed.partial is not None:  # the clips that have a URL are fetched
            return Confirmed(observed.partial)
        failure = status.failure
        if failure is not None and failure.code != NO_VIDEO:
            message = f"called completed first and then {status.status}: {failure.message}"
            return Confirmed(replace(status, failure=Failure(NO_VIDEO, message)))
        return Confirmed(status)

    def _await_second_error(self, key: str, status: GenerationStatus, now: float) -> Finality:
        observed = self._observed.setdefault(key, _Observed())
        if observed.error_at is None:
            observed.error_at = now
        observed.error_polls += 1
        since, gap, polls = observed.error_at, LONG_ERROR_GAP_INTERVALS, MIN_LONG_POLLS
        if status.generation_id:
            observed.error = status
            if observed.named_error_at is None:
                observed.named_error_at = now
            if key not in self._taken_over:
                since, gap, polls = observed.named_error_at, ERROR_GAP_INTERVALS, 2
        remaining_s = since + gap * self._error_interval_s - now
        if observed.error_polls < polls:
            remaining_s = max(remaining_s, self._interval_s)
        if remaining_s > 0:
            return Unconfirmed(min(remaining_s, self._interval_s))
        self.forget(key)
        return Confirmed(status)
