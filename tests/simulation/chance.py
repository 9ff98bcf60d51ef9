"""Where everything that may happen comes from: one seed, and by name the faults that it chose.

Each name has a stream of its own, so that leaving one fault out (as the shrinker does) moves no other. Half
of the seeds strike with a part of everything; the others with one to three kinds alone, and often: what
takes two rare faults at once is met sooner where nothing else gets in the way (swarm testing).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FAULTS: Final[dict[str, tuple[str, ...]]] = {
    "create": (
        "refused connection", "reset before acceptance", "502 before acceptance", "502 after acceptance",
        "504 with the id", "silence before acceptance", "silence after acceptance", "cut answer",
        "garbled answer", "answer without an id", "400", "401", "402", "403", "404", "422",
        "408 after acceptance",
        "409 after acceptance", "460 after acceptance", "499 after acceptance", "520 before acceptance",
        "429", "429 with a wait", "429 with a date", "429 quota", "500", "503", "slow acceptance", "redirect",
        "another row's id", "asleep before it leaves", "answer to another", "405",
        "nameless error before acceptance", "nameless error after acceptance",
    ),
    "status": (
        "connection refused", "reset", "silence", "cut", "html", "unknown status", "429", "500", "404",
        "401", "error flap", "completed without url", "of another generation", "out of date",
        "error after completion", "no url for minutes",
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
    "step": ("killed", "ctrl-c", "ctrl-c twice"),
    "life": (
        "killed", "power cut", "ctrl-c", "ctrl-c twice", "stopped and continued", "suspended",
        "clock forwards", "clock backwards", "second process", "disk full for a while", "log stands still",
        "vendor away", "account empty", "model withdrawn", "key rotated", "restored ledger",
        "file moved away", "clip copied into place", "users file in the way", "flood of refusals",
        "folder lock lost", "statuses unknown for a while", "nameless errors for a while",
    ),
    "user": ("rows added", "rows removed", "rows edited", "reordered", "retry failed", "resubmit in doubt"),
}  # fmt: skip
"""Every kind of fault, by the point where it strikes."""

CLUSTER_FAULTS: Final[dict[str, tuple[str, ...]]] = {
    **{point: kinds for point, kinds in FAULTS.items() if point != "commit"},
    "message": ("lost", "answer lost", "late", "answer late"),
    "orphans": ("linger",),
    "database": ("lost before", "lost after", "silent for a while"),
    "connect": ("refused",),
    "life": (
        "worker killed", "coordinator killed", "driver killed", "worker stopped and continued",
        "coordinator stopped and continued", "driver stopped and continued", "worker machine suspended",
        "worker machine lost", "worker clock forwards", "worker clock backwards", "database restarts",
        "database away", "database takes no writes", "ctrl-c", "ctrl-c twice", "second process",
        "disk full for a while", "log stands still", "vendor away", "account empty", "model withdrawn",
        "key rotated", "file moved away", "clip copied into place", "users file in the way",
        "flood of refusals", "driver machine without power", "head of ray lost", "restored ledger",
        "statuses unknown for a while", "nameless errors for a while",
    ),
}  # fmt: skip
"""The same in a cluster's world."""

CLUSTER_SHARE: Final = 0.25

RATES: Final = {
    "create": (0.0, 0.02, 0.1, 0.3),
    "status": (0.0, 0.01, 0.05, 0.2),
    "log": (0.0, 0.05, 0.3),
    "transactions": (0.5, 1.0),
    "cdn": (0.0, 0.05, 0.2),
    "disk": (0.0, 0.0, 0.0005, 0.003),
    "commit": (0.0, 0.0, 0.01, 0.05),
    "commit delay": (0.0, 0.05, 0.5),
    "thread": (0.0, 0.02, 0.2),
    "step": (0.0, 0.2, 0.6),
    "user": (0.0, 0.5, 1.0),
    "message": (0.0, 0.0, 0.001, 0.005),
    "orphans": (0.0, 0.5),
    "database": (0.0, 0.0, 0.003, 0.02),
    "connect": (0.0, 0.2),
}
"""The rates that a seed chooses among, of each request, file operation, step, ..."""


FOCUSED_RATES: Final = {
    "create": (0.1, 0.3, 0.7),
    "status": (0.1, 0.3, 0.6),
    "log": (0.3, 0.7),
    "transactions": (0.6, 1.0),
    "cdn": (0.2, 0.6),
    "disk": (0.003, 0.02),
    "commit": (0.02, 0.15),
    "commit delay": (0.3, 0.8),
    "thread": (0.3, 0.8),
    "step": (0.7, 1.0),
    "user": (1.0,),
    "message": (0.005, 0.02),
    "orphans": (1.0,),
    "database": (0.01, 0.05),
    "connect": (0.5,),
}
"""The same for a seed that strikes with few kinds."""

ASKED_IN_DOUBT: Final = ("log", "transactions")
DOUBTS: Final = ("reset before acceptance", "silence before acceptance", "502 after acceptance")
"""Without a row in doubt nobody asks for the log, and without one that was never accepted not for charges."""

FOCUSED_SHARE: Final = 0.5

LOG_STOPS: Final = "log stands still"
NO_CHARGES: Final = "404"
"""Where the log may stop, no call for the charges says that there is none: the proof needs one of them."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault of a run: the `number`-th chance at `point` was struck by `kind`, after `at` seconds."""

    point: str
    number: int
    kind: str
    at: float = field(default=0.0, compare=False)

    def __str__(self) -> str:
        return f"{self.point}: {self.kind} (#{self.number})"


@dataclass(slots=True)
class Chance:
    """The streams and faults of one seed. Faults in `skipped` do not happen; with `calm` none does.

    With a `schedule` just its faults happen, whatever the tables say by now: a history that was kept.
    `focus` names the (point, kind) pairs that strike and no others; by default half of the seeds choose some.
    """

    seed: int
    skipped: frozenset[Fault] = frozenset()
    schedule: tuple[Fault, ...] | None = None
    focus: tuple[tuple[str, str], ...] = ()
    struck: list[Fault] = field(default_factory=list)
    calm: bool = False
    is_cluster: bool = False
    now: Callable[[], float] = float
    _streams: dict[str, Random] = field(default_factory=dict)
    _tables: dict[str, tuple[float, tuple[str, ...]]] = field(default_factory=dict)
    _drawn: Counter[str] = field(default_factory=Counter)
    _planned: dict[tuple[str, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._planned = {(fault.point, fault.number): fault.kind for fault in self.schedule or ()}
        chance = self.stream("focus")
        if not self.focus and chance.random() < FOCUSED_SHARE:
            self.focus = tuple(_pick(chance, self.faults) for _ in range(chance.randrange(1, 4)))
            if any(point in ASKED_IN_DOUBT for point, _ in self.focus):
                self.focus += (("create", chance.choice(DOUBTS)),)

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
        self._drawn[point] += 1
        number = self._drawn[point]
        if self.schedule is not None:
            kind = self._planned.get((point, number), "")
            return kind if kind and self.strike(point, kind, number) else ""
        rate, kinds = self._table(point)
        if not rate or self.stream(f"draw {point}").random() >= rate:
            return ""
        kind = kinds[self.stream(f"kind {point}").randrange(len(kinds))]
        return kind if self.strike(point, kind, number) else ""

    def strike(self, point: str, kind: str, number: int) -> bool:
        """Take note of a fault, and say whether it happens."""
        fault = Fault(point, number, kind, self.now())
        if fault in self.skipped:
            return False
        self.struck.append(fault)
        return True

    def kinds(self, point: str) -> tuple[str, ...]:
        """Return the kinds that this seed may strike with at `point`."""
        return self._table(point)[1]

    @property
    def faults(self) -> Mapping[str, tuple[str, ...]]:
        """Every kind of fault of such a world, by the point where it strikes."""
        return CLUSTER_FAULTS if self.is_cluster else FAULTS

    @property
    def is_focused(self) -> bool:
        """Whether this seed strikes with few kinds."""
        return bool(self.focus)

    def _table(self, point: str) -> tuple[float, tuple[str, ...]]:
        found = self._tables.get(point)
        if found is None:
            rate, kinds = self._few(point) if self.focus else self._many(point)
            if point == "transactions" and LOG_STOPS in self.kinds("life"):
                kinds = tuple(kind for kind in kinds if kind != NO_CHARGES)
            found = self._tables[point] = rate if kinds else 0.0, kinds
        return found

    def _many(self, point: str) -> tuple[float, tuple[str, ...]]:
        """About half of all kinds, at a rate that suits many at once."""
        chance = self.stream(f"table {point}")
        kinds = self.faults[point]
        chosen = tuple(kind for kind in kinds if chance.random() < 0.5) or (chance.choice(kinds),)
        return chance.choice(RATES.get(point, (1.0,))), chosen

    def _few(self, point: str) -> tuple[float, tuple[str, ...]]:
        """Those of the few kinds in focus that strike at `point`."""
        chosen = tuple(kind for at, kind in self.focus if at == point)
        rates = FOCUSED_RATES.get(point, (1.0,)) if chosen else (0.0,)
        return self.stream(f"table {point}").choice(rates), chosen


def is_cluster_seed(seed: int) -> bool:
    """Say whether a seed's world is a cluster's."""
    return Random(f"{seed}/world").random() < CLUSTER_SHARE


def _pick(chance: Random, faults: Mapping[str, tuple[str, ...]]) -> tuple[str, str]:
    """Return a kind of fault: points with few kinds are chosen as often as those with many, half the time."""
    if chance.random() < 0.5:
        return chance.choice([(point, kind) for point, kinds in faults.items() for kind in kinds])
    point = chance.choice(tuple(faults))
    return point, chance.choice(faults[point])
