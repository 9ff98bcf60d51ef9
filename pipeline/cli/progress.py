"""What the terminal shows while a run goes on: bars for people, plain lines for logs.

Owns the words and the rhythm. Knows nothing of the engine beyond its events; whoever starts the run
decides where the words go, and calls `tick` now and then so that the time left moves.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, TextIO

from pipeline.cli.bars import Bars, wants_bars
from pipeline.cli.farewell import closing_words, name_of, reason
from pipeline.cli.terminal import clock_words, one_line
from pipeline.events import Event, Level, Topic
from pipeline.model import MAYBE_PAID, Record, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

__all__ = ["Progress", "Tally", "closing_words", "wants_bars"]

UNKNOWN: Final = "time left not known yet"
_FIRST_S: Final = 10.0
_EVERY_S: Final = 30.0
_SLOWEST_S: Final = 300.0
_REDRAW_S: Final = 0.15
_FAILURES_SHOWN: Final = 20
_RENDERED: Final = frozenset({State.READY, State.DONE, State.FAILED})
_SHOWN: Final[Mapping[Level, int]] = {Level.DEBUG: 2, Level.INFO: 1, Level.WARNING: 0, Level.ERROR: -1}


class Tally:
    """Counts of a run that is going on, kept by its events; money in USD."""

    def __init__(self, total: int, known: Iterable[Record] = ()) -> None:
        self.total = total
        self.throttled = 0
        self.usd = 0.0
        self._states: Counter[State] = Counter()
        for record in known:
            self._add(record, 1)
        self._saved_before = self.saved

    def moved(self, before: Record, after: Record) -> None:
        self._add(before, -1)
        self._add(after, 1)

    @property
    def saved(self) -> int:
        return self._states[State.DONE]

    @property
    def saved_now(self) -> int:
        """Videos saved since the tally began."""
        return self.saved - self._saved_before

    @property
    def failed(self) -> int:
        return self._states[State.FAILED]

    @property
    def rendered(self) -> int:
        return sum(self._states[state] for state in _RENDERED)

    @property
    def submitted(self) -> int:
        return self.rendered + self._states[State.GENERATING] + self._states[State.IN_DOUBT]

    def troubles(self) -> list[str]:
        """Return what there is to worry about, in few words each; empty when all is well."""
        doubt = self._states[State.IN_DOUBT]
        counted = ((self.failed, "failed"), (doubt, "in doubt"), (self.throttled, "x 429"))
        return [f"{count}{word}" if word[0] == "x" else f"{count} {word}" for count, word in counted if count]

    def _add(self, record: Record, sign: int) -> None:
        if record.position < 0:
            return
        self._states[record.state] += sign
        if record.usd_spent is not None:
            self.usd += sign * record.usd_spent
        elif record.state in MAYBE_PAID and record.state is not State.SUBMITTING:
            self.usd += sign * (record.reserved_usd or 0.0)


class Progress:
    """An observer that shows a run on `stream`; a context manager around the run.

    `known` are the records as they stand when the run begins, so that a continued run counts from where
    it was; `total` counts the manifest's rows. `eta` returns the seconds that are left, or None while
    nobody can know; `estimate_usd` is what the whole batch is expected to cost. `quiet` shows errors only;
    `verbose` 1 adds what is saved, 2 everything.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO | None = None,
        *,
        known: Iterable[Record] = (),
        quiet: bool = False,
        verbose: int = 0,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        eta: Callable[[], float | None] | None = None,
        estimate_usd: float | None = None,
    ) -> None:
        self.tally = Tally(total, known)
        self._stream = sys.stderr if stream is None else stream
        self._loudness = -1 if quiet else verbose
        self._clock = clock
        self._eta = eta
        self._estimate = estimate_usd
        self._began = self._drawn = clock()
        self._next = self._began + _FIRST_S
        self._last = ""
        self._failures = 0
        self._bars: Bars | None = None
        self._environ = environ
        self._closed = False

    def __enter__(self) -> Progress:
        if self._loudness >= 0 and self.tally.total and wants_bars(self._stream, self._environ):
            self._bars = Bars(self.tally.total, self._stream, self._environ)
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
        elif self._loudness >= 0:
            self._line()
        self._closed = True

    def moved(self, before: Record, after: Record) -> None:
        self.tally.moved(before, after)
        if after.state is State.FAILED and before.state is not State.FAILED:
            self._failed(after)
        elif after.state is State.DONE and before.state is not State.DONE and self._loudness >= 1:
            self.say(f"saved {name_of(after)}: {after.artifact.path if after.artifact else ''}")
        self.tick()

    def said(self, event: Event) -> None:
        if event.topic is Topic.THROTTLED:
            self.tally.throttled += 1
        if self._loudness >= _SHOWN[event.level]:
            self.say(event.message)
        self.tick()

    def say(self, text: str) -> None:
        """Print a line, above the bars when there are any; nothing in it can move the cursor."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        line = one_line(text).encode(encoding, "replace").decode(encoding)
        if self._bars is not None:
            self._bars.say(line)
        else:
            print(line, file=self._stream, flush=True)

    def tick(self) -> None:
        """Show what is due; cheap when nothing is."""
        now = self._clock()
        if self._closed:
            return
        if self._bars is not None:
            if now - self._drawn >= _REDRAW_S:
                self._draw(self._bars)
        elif now >= self._next and self._loudness >= 0:
            self._next = now + min(_SLOWEST_S, max(_EVERY_S, (now - self._began) / 20))
            self._line()

    def _failed(self, record: Record) -> None:
        self._failures += 1
        if self._loudness < 0 or self._failures > _FAILURES_SHOWN + 1:
            return
        if self._failures > _FAILURES_SHOWN:
            self.say("further failures are told at the end, and in results.csv")
        else:
            self.say(f"failed {name_of(record)}: {reason(record)}")

    def _draw(self, bars: Bars) -> None:
        self._drawn = self._clock()
        tally = self.tally
        facts = [*self._time_left(), *tally.troubles(), *self._money(), *self._pace(), *self._unknown()]
        bars.draw((tally.submitted, tally.rendered, tally.saved), facts or [""])

    def _line(self) -> None:
        tally = self.tally
        counts = f"submitted {tally.submitted}/{tally.total}, rendered {tally.rendered}, saved {tally.saved}"
        words = ", ".join([counts, *tally.troubles(), *self._money(), *self._time_left(), *self._unknown()])
        if words != self._last:
            self._last = words
            self.say(words)

    def _pace(self) -> list[str]:
        minutes = (self._clock() - self._began) / 60
        if self.tally.saved_now < 2 or minutes <= 0:
            return []
        return [f"{self.tally.saved_now / minutes:.3g}/min"]

    def _money(self) -> list[str]:
        if not self.tally.usd and not self._estimate:
            return []
        of = f" of ${self._estimate:,.2f}" if self._estimate else ""
        return [f"${self.tally.usd:,.2f}{of}"]

    def _time_left(self) -> list[str]:
        over = self.tally.saved + self.tally.failed >= self.tally.total
        left = self._eta() if self._eta is not None and not over else None
        return [] if left is None else [f"{clock_words(left)} left"]

    def _unknown(self) -> list[str]:
        """Say that nobody can know the time left yet: the last thing to find room for."""
        over = self.tally.saved + self.tally.failed >= self.tally.total
        return [] if self._eta is None or over or self._eta() is not None else [UNKNOWN]
