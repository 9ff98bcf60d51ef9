"""What the terminal shows while a run goes on: bars for people, plain lines for logs.

Owns the text and how often it is shown. Knows nothing of the engine beyond its events; whoever starts the
run chooses the stream, and calls `tick` now and then so that the time left moves.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from operator import attrgetter
from typing import TYPE_CHECKING, Final, TextIO

from pipeline import clocks
from pipeline.cli.reporting.summary_text import failure_text, row_label
from pipeline.cli.reporting.terminal import ProgressBars, can_draw_bars, duration_text, one_line
from pipeline.events import Event, Level, Topic
from pipeline.model import MAYBE_PAID_STATES, Record, State
from pipeline.results.failures import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

TIME_LEFT_UNKNOWN: Final = "time left unknown"
_FIRST_LINE_S: Final = 10.0
_LINE_INTERVAL_S: Final = 30.0
_MAX_LINE_INTERVAL_S: Final = 300.0
_REDRAW_INTERVAL_S: Final = 0.15
_FAILURES_PER_REASON: Final = 3
_RENDERED: Final = frozenset({State.READY, State.DONE})
_MIN_VERBOSITY: Final[Mapping[Level, int]] = {
    Level.DEBUG: 2,
    Level.INFO: 1,
    Level.WARNING: 0,
    Level.ERROR: -1,
}


class RunCounts:
    """Counts of a run that is going on, kept by its events; money in USD."""

    def __init__(self, total: int, known: Iterable[Record] = ()) -> None:
        self.total = total
        self.rate_limited = 0
        rows = [record for record in known if record.position >= 0]
        self.usd = sum(map(_cost_usd, rows))
        self._failed_after_submission = sum(map(_failed_after_submission, rows))
        self._states = Counter(map(attrgetter("state"), rows))
        self._saved_at_start = self.saved

    def on_transition(self, before: Record, after: Record) -> None:
        self._add(before, -1)
        self._add(after, 1)

    @property
    def saved(self) -> int:
        return self._states[State.DONE]

    @property
    def saved_this_run(self) -> int:
        """Videos saved since the run began."""
        return self.saved - self._saved_at_start

    @property
    def failed(self) -> int:
        return self._states[State.FAILED]

    @property
    def rendered(self) -> int:
        return sum(self._states[state] for state in _RENDERED)

    @property
    def submitted(self) -> int:
        open_rows = self._states[State.GENERATING] + self._states[State.IN_DOUBT]
        return self.rendered + open_rows + self._failed_after_submission

    def warnings(self) -> list[str]:
        """Return what may need attention, a few words each; empty when all is well."""
        in_doubt = self._states[State.IN_DOUBT]
        counts = ((self.failed, "failed"), (in_doubt, "in doubt"), (self.rate_limited, "throttled"))
        return [f"{count:,} {label}" for count, label in counts if count]

    def _add(self, record: Record, sign: int) -> None:
        if record.position < 0:
            return
        self._states[record.state] += sign
        self._failed_after_submission += sign * _failed_after_submission(record)
        self.usd += sign * _cost_usd(record)


def _failed_after_submission(record: Record) -> bool:
    return record.state is State.FAILED and record.submitted_at is not None


def _cost_usd(record: Record) -> float:
    """Return what a row has cost, or is expected to once it is or may be accepted."""
    if (spent := record.usd_spent) is not None:
        return spent
    counts = record.state in MAYBE_PAID_STATES and record.state is not State.SUBMITTING
    return (record.reserved_usd or 0.0) if counts else 0.0


class Progress:
    """An observer that shows a run on `stream`; a context manager around the run.

    `known` are the records as they stand when the run begins, so that a continued run counts from where
    it was; `total` counts the manifest's rows. `eta` returns the seconds that are left, or None while
    it is unknown; `estimate_usd` is what the whole batch is expected to cost, in the sandbox's play money
    when `sandbox`. `quiet` shows errors only; `verbose` 1 adds every saved video and the run's decisions,
    2 also every change of a row's state and the details of requests.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO | None = None,
        *,
        known: Iterable[Record] = (),
        quiet: bool = False,
        verbose: int = 0,
        sandbox: bool = False,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = clocks.monotonic,
        eta: Callable[[], float | None] | None = None,
        estimate_usd: float | None = None,
    ) -> None:
        self.counts = RunCounts(total, known)
        self._stream = sys.stderr if stream is None else stream
        self._verbosity = -1 if quiet else verbose
        self._clock = clock
        self._eta = eta
        self._estimate_usd = estimate_usd
        self._started = self._last_drawn = clock()
        self._next_line_at = self._started + _FIRST_LINE_S
        self._last_line = ""
        self._failures_printed: Counter[tuple[str, str]] = Counter()
        self._sandbox = sandbox
        self._bars: ProgressBars | None = None
        self._environ = environ
        self._closed = False

    def __enter__(self) -> Progress:
        if self._verbosity >= 0 and self.counts.total and can_draw_bars(self._stream, self._environ):
            self._bars = ProgressBars(self.counts.total, self._stream, self._environ)
            self._draw(self._bars)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._eta = None  # however it ended, nothing is left of this run
        if self._bars is not None:
            self._draw(self._bars)
            self._bars.close()
            self._bars = None
        elif self._verbosity >= 0:
            self._print_counts_line()
        self._closed = True

    def on_transition(self, before: Record, after: Record) -> None:
        self.counts.on_transition(before, after)
        if after.state is State.FAILED and before.state is not State.FAILED:
            self._print_failure(after)
        elif after.state is State.DONE and before.state is not State.DONE and self._verbosity >= 1:
            self.print_line(f"saved {row_label(after)}: {after.artifact.path if after.artifact else ''}")
        elif after.state is not before.state and self._verbosity >= 2:
            self.print_line(f"{row_label(after)}: {before.state} -> {after.state}")
        self.tick()

    def on_event(self, event: Event) -> None:
        if event.topic is Topic.THROTTLED:
            self.counts.rate_limited += 1
        if self._verbosity >= _MIN_VERBOSITY[event.level]:
            self.print_line(event.message)
        self.tick()

    def print_line(self, text: str) -> None:
        """Print a line, above the bars when there are any; nothing in it can move the cursor."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        line = one_line(text).encode(encoding, "replace").decode(encoding)
        if self._bars is not None:
            self._bars.print_line(line)
        else:
            print(line, file=self._stream, flush=True)

    def tick(self) -> None:
        """Show what is due; cheap when nothing is."""
        now = self._clock()
        if self._closed:
            return
        if self._bars is not None:
            if now - self._last_drawn >= _REDRAW_INTERVAL_S:
                self._draw(self._bars)
        elif now >= self._next_line_at and self._verbosity >= 0:
            self._next_line_at = now + min(
                _MAX_LINE_INTERVAL_S, max(_LINE_INTERVAL_S, (now - self._started) / 20)
            )
            self._print_counts_line()

    def _print_failure(self, record: Record) -> None:
        """Print the first failures of each reason; the summary at the end has the rest, grouped."""
        key = reason(record.failure)
        self._failures_printed[key] += 1
        printed = self._failures_printed[key]
        if self._verbosity < 0 or printed > _FAILURES_PER_REASON + 1:
            return
        if printed > _FAILURES_PER_REASON:
            self.print_line(f"more rows failed with {key[0]}: see the summary at the end")
        else:
            self.print_line(f"failed {row_label(record)}: {failure_text(record)}")

    def _draw(self, bars: ProgressBars) -> None:
        self._last_drawn = self._clock()
        run_counts = self.counts
        status_parts = [
            *self._time_left(),
            *run_counts.warnings(),
            *self._cost(),
            *self._rate(),
            *self._time_left_unknown(),
        ]
        bars.draw((run_counts.submitted, run_counts.rendered, run_counts.saved), status_parts or [""])

    def _print_counts_line(self) -> None:
        run_counts = self.counts
        steps = (
            f"submitted {run_counts.submitted}/{run_counts.total}, "
            f"rendered {run_counts.rendered}, saved {run_counts.saved}"
        )
        line = ", ".join(
            [steps, *run_counts.warnings(), *self._cost(), *self._time_left(), *self._time_left_unknown()]
        )
        if line != self._last_line:
            self._last_line = line
            self.print_line(line)

    def _rate(self) -> list[str]:
        minutes = (self._clock() - self._started) / 60
        if self.counts.saved_this_run < 2 or minutes <= 0:
            return []
        per_minute = self.counts.saved_this_run / minutes
        return [f"{per_minute:,.0f}/min" if per_minute >= 10 else f"{per_minute:.1f}/min"]

    def _cost(self) -> list[str]:
        if not self.counts.usd and not self._estimate_usd:
            return []
        of = f" of ${self._estimate_usd:,.2f}" if self._estimate_usd else ""
        return [f"${self.counts.usd:,.2f}{of}{' in play money' if self._sandbox else ''}"]

    def _time_left(self) -> list[str]:
        finished = self.counts.saved + self.counts.failed >= self.counts.total
        left = self._eta() if self._eta is not None and not finished else None
        return [] if left is None else [f"{duration_text(left)} left"]

    def _time_left_unknown(self) -> list[str]:
        """Return that the time left is unknown: shown last, where there is room."""
        finished = self.counts.saved + self.counts.failed >= self.counts.total
        return [] if self._eta is None or finished or self._eta() is not None else [TIME_LEFT_UNKNOWN]
