"""What the terminal shows while a run goes on: bars for people, plain lines for logs.

Owns the words and the rhythm. Knows nothing of the engine beyond its events; the rest of the command
decides where the words go.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, TextIO

from pipeline.events import Event, Level, Topic
from pipeline.model import MAYBE_PAID, State
from pipeline.results import status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from pipeline.model import Record

_FIRST_S: Final = 10.0
_EVERY_S: Final = 30.0
_SLOWEST_S: Final = 300.0
_REDRAW_S: Final = 0.1
_RENDERED = frozenset({State.READY, State.DONE, State.FAILED})
_SHOWN: Final[Mapping[Level, int]] = {Level.DEBUG: 2, Level.INFO: 1, Level.WARNING: 0, Level.ERROR: 0}
_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), "�") | {10: "⏎", 9: " "}


def wants_bars(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether `stream` is a terminal that can redraw lines, with somebody in front of it."""
    if environ.get("CI", "").lower() not in ("", "0", "false") or environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def clock_words(seconds: float) -> str:
    """Return a duration as people say it: `45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def one_line(text: str) -> str:
    """Return `text` without anything that could move a terminal's cursor."""
    return text.translate(_CONTROL)


class Tally:
    """Counts of a run that is going on, kept by its events."""

    def __init__(self, total: int, known: Iterable[Record] = ()) -> None:
        self.total = total
        self.states: Counter[State] = Counter()
        self.usd = 0.0
        self.estimate = 0.0
        self.throttled = 0
        for record in known:
            self._add(record, 1)

    def moved(self, before: Record, after: Record) -> None:
        self._add(before, -1)
        self._add(after, 1)

    def _add(self, record: Record, sign: int) -> None:
        if record.position < 0:
            return
        self.states[status(record)] += sign
        self.usd += sign * (record.usd_spent or 0.0)
        if record.state in MAYBE_PAID and record.usd_spent is None:
            self.estimate += sign * (record.reserved_usd or 0.0)

    @property
    def saved(self) -> int:
        return self.states[State.DONE]

    @property
    def failed(self) -> int:
        return self.states[State.FAILED]

    @property
    def rendered(self) -> int:
        return sum(self.states[state] for state in _RENDERED)

    @property
    def submitted(self) -> int:
        return self.rendered + self.states[State.GENERATING] + self.states[State.IN_DOUBT]

    def troubles(self) -> list[str]:
        """Return what there is to worry about, in few words each; empty when all is well."""
        doubt = self.states[State.IN_DOUBT]
        return [
            words
            for count, words in (
                (self.failed, f"{self.failed} failed"),
                (doubt, f"{doubt} in doubt"),
                (self.throttled, f"{self.throttled}× 429"),
            )
            if count
        ]


class Progress:
    """An observer that shows a run on `stream`; a context manager around the run.

    `known` are the records as they stand when the run begins (those of a resumed run are counted from
    the start); `eta` returns the seconds that are left, or None while nobody can know. `budget_usd` is
    what the whole batch is expected to cost.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO = sys.stderr,
        *,
        known: Iterable[Record] = (),
        quiet: bool = False,
        verbose: int = 0,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        eta: Callable[[], float | None] | None = None,
        budget_usd: float | None = None,
    ) -> None:
        self.tally = Tally(total, known)
        self._stream = stream
        self._quiet = quiet
        self._verbose = verbose
        self._clock = clock
        self._eta = eta
        self._budget = budget_usd
        self._began = clock()
        self._next = self._began + _FIRST_S
        self._last = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line()

    def moved(self, before: Record, after: Record) -> None:
        self.tally.moved(before, after)
        self.tick()

    def said(self, event: Event) -> None:
        if event.topic is Topic.THROTTLED:
            self.tally.throttled += 1
        if not self._quiet and self._verbose >= _SHOWN[event.level]:
            self._say(one_line(event.message))
        self.tick()

    def tick(self) -> None:
        """Show what is due; call it now and then when nothing happens, so that the time left moves."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + min(_SLOWEST_S, max(_EVERY_S, (now - self._began) / 20))
        self._line()

    def _line(self) -> None:
        words = self._words()
        if not self._quiet and words != self._last:
            self._say(words)
            self._last = words

    def _words(self) -> str:
        tally = self.tally
        parts = [
            f"submitted {tally.submitted}/{tally.total}",
            f"rendered {tally.rendered}",
            f"saved {tally.saved}",
        ]
        parts += tally.troubles()
        if tally.usd or tally.estimate:
            of = f" of ${self._budget:.2f}" if self._budget else ""
            parts.append(f"${tally.usd + tally.estimate:.2f}{of}")
        if self._eta is not None and (left := self._eta()) is not None:
            parts.append(f"{clock_words(left)} left")
        return ", ".join(parts)

    def _say(self, words: str) -> None:
        print(words, file=self._stream, flush=True)
