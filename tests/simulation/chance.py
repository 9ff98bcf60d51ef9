"""Where everything that may happen comes from: one seed, and by name the faults that it chose.

Each name has a stream of its own, so that leaving one fault out (as the shrinker does) moves no other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Final

FAULTS: Final[dict[str, tuple[str, ...]]] = {
    "create": (
        "refused connection", "reset before acceptance", "502 before acceptance", "502 after acceptance",
        "504 with the id", "silence before acceptance", "silence after acceptance", "cut answer",
        "garbled answer", "answer without an id", "400", "401", "402", "403", "404", "422",
        "408 after acceptance",
        "409 after acceptance", "460 after acceptance", "499 after acceptance", "520 before acceptance",
        "429", "429 with a wait", "429 with a date", "429 quota", "500", "503", "slow acceptance", "redirect",
        "another row's id",
    ),
    "status": (
        "connection refused", "reset", "silence", "cut", "html", "unknown status", "429", "500", "404",
        "401", "error flap", "completed without url", "of another generation", "out of date",
    ),
    "log": (
        "connection refused", "429", "500", "403", "garbled", "replica behind", "reset",
    ),
    "transactions": ("500", "403", "404", "garbled"),
    "cdn": (
        "refused", "503", "403", "404", "410", "cut", "stall", "page", "damaged bytes", "changed file",
        "no ranges", "redirect", "redirect to a private address", "slow", "empty",
    ),
    "disk": ("full", "io error"),
    "commit": ("disk full", "io error"),
    "commit delay": ("slow",),
    "thread": ("late",),
    "step": ("killed",),
    "life": (
        "killed", "power cut", "ctrl-c", "ctrl-c twice", "stopped and continued", "suspended",
        "clock forwards", "clock backwards", "second process", "disk full for a while", "log stands still",
        "vendor away", "account empty", "model withdrawn", "key rotated", "restored ledger",
        "file moved away",
        "users file in the way", "flood of refusals",
    ),
    "user": ("rows added", "rows removed", "rows edited", "reordered", "retry failed", "resubmit in doubt"),
}  # fmt: skip
"""Every kind of fault, by the point where it strikes."""

RATES: Final = {
    "create": (0.0, 0.02, 0.1, 0.3),
    "status": (0.0, 0.01, 0.05, 0.2),
    "log": (0.0, 0.05, 0.3),
    "transactions": (0.3, 0.8),
    "cdn": (0.0, 0.05, 0.2),
    "disk": (0.0, 0.0, 0.0005, 0.003),
    "commit": (0.0, 0.0, 0.01, 0.05),
    "commit delay": (0.0, 0.05, 0.5),
    "thread": (0.0, 0.02, 0.2),
    "step": (0.0, 0.2, 0.6),
    "user": (0.0, 0.5, 1.0),
}
"""The rates that a seed chooses among, of each request, file operation, step, ..."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault of a run: the `number`-th chance at `point` was struck by `kind`."""

    point: str
    number: int
    kind: str

    def __str__(self) -> str:
        return f"{self.point}: {self.kind} (#{self.number})"


@dataclass(slots=True)
class Chance:
    """The streams and faults of one seed. Faults in `skipped` do not happen; with `calm` none does."""

    seed: int
    skipped: frozenset[Fault] = frozenset()
    struck: list[Fault] = field(default_factory=list)
    calm: bool = False
    _streams: dict[str, Random] = field(default_factory=dict)
    _tables: dict[str, tuple[float, tuple[str, ...]]] = field(default_factory=dict)
    _drawn: Counter[str] = field(default_factory=Counter)

    def stream(self, name: str) -> Random:
        """Return the stream of that name."""
        found = self._streams.get(name)
        if found is None:
            found = self._streams[name] = Random(f"{self.seed}/{name}")
        return found

    def draw(self, point: str) -> str:
        """Return the kind of fault that strikes at `point` now, "" for none."""
        if self.calm:
            return ""
        rate, kinds = self._table(point)
        if not rate or self.stream(f"draw {point}").random() >= rate:
            return ""
        self._drawn[point] += 1
        kind = kinds[self.stream(f"kind {point}").randrange(len(kinds))]
        return kind if self.strike(point, kind, self._drawn[point]) else ""

    def strike(self, point: str, kind: str, number: int) -> bool:
        """Take note of a fault, and say whether it happens."""
        fault = Fault(point, number, kind)
        if fault in self.skipped:
            return False
        self.struck.append(fault)
        return True

    def kinds(self, point: str) -> tuple[str, ...]:
        """Return the kinds that this seed may strike with at `point`: about half of all."""
        return self._table(point)[1]

    def _table(self, point: str) -> tuple[float, tuple[str, ...]]:
        found = self._tables.get(point)
        if found is None:
            chance = self.stream(f"table {point}")
            kinds = FAULTS[point]
            chosen = tuple(kind for kind in kinds if chance.random() < 0.5) or (chance.choice(kinds),)
            found = self._tables[point] = (chance.choice(RATES.get(point, (1.0,))), chosen)
        return found
