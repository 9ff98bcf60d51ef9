"""Owns which fault strikes when: what was asked for, whom it concerns, how often it struck already. Pure."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Stage(StrEnum):
    """What a fault spoils."""

    CREATE = "create"
    STATUS = "status"
    GENERATION = "generation"
    LOG_ROW = "log row"
    LOG_CALL = "log call"
    CDN = "cdn"


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to misbehave, asked for by its name in `FAULTS`.

    It concerns the jobs whose prompt or correlation id contains `match` ("" is all of them), or only the
    `nth` create (from 1). Of its chances it takes a `share` (seeded), at most `times` a job (None: always),
    once the first `after` chances of each job went by, and at most `total` times in all. A job is a body:
    the same body created again is the same job. `value` is the fault's own parameter, where it has one.
    """

    name: str
    match: str = ""
    nth: int | None = None
    share: float = 1.0
    times: int | None = None
    after: int = 0
    total: int | None = None
    value: float | str | None = None

    def number(self, default: float) -> float:
        """`value` as a number, `default` if there is none."""
        return default if self.value is None else float(self.value)

    def text(self, default: str) -> str:
        """`value` as text, `default` if there is none."""
        return default if self.value is None else str(self.value)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a request is about. `key` tells jobs apart, `nth` is the create's number, from 1."""

    key: str
    prompt: str = ""
    correlation_id: str = ""
    nth: int = 0


@dataclass(slots=True)
class FaultDesk:
    """The faults of one sandbox, and how often each had its chance and struck, by job."""

    seed: int
    stages: Mapping[str, Stage]
    faults: list[Fault] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    _chances: Counter[tuple[int, str]] = field(default_factory=Counter)
    _strikes: Counter[tuple[int, str]] = field(default_factory=Counter)
    _totals: Counter[int] = field(default_factory=Counter)

    def add(self, fault: Fault) -> None:
        """Raises `ValueError` for a name or a share that does not exist."""
        if fault.name not in self.stages:
            raise ValueError(f"no fault is called {fault.name!r}; there are {', '.join(sorted(self.stages))}")
        if not 0 <= fault.share <= 1:
            raise ValueError(f"{fault.name}: a share lies between 0 and 1, not at {fault.share}")
        self.faults.append(fault)

    def pick(self, stage: Stage, subject: Subject) -> Fault | None:
        """The first fault of that stage that strikes now, already counted."""
        for index, fault in enumerate(self.faults):
            if self.stages[fault.name] is stage and self._strikes_now(index, fault, subject):
                return fault
        return None

    def pick_all(self, stage: Stage, subject: Subject) -> tuple[Fault, ...]:
        """Every fault of that stage that strikes now, already counted."""
        return tuple(
            fault
            for index, fault in enumerate(self.faults)
            if self.stages[fault.name] is stage and self._strikes_now(index, fault, subject)
        )

    def _strikes_now(self, index: int, fault: Fault, subject: Subject) -> bool:
        if not _concerns(fault, subject):
            return False
        place = (index, subject.key)
        chance = self._chances[place]
        self._chances[place] += 1
        if chance < fault.after or (fault.times is not None and self._strikes[place] >= fault.times):
            return False
        if fault.total is not None and self._totals[index] >= fault.total:
            return False
        if fault.share < 1 and random.Random(f"{self.seed}/{place}/{chance}").random() >= fault.share:
            return False
        self._strikes[place] += 1
        self._totals[index] += 1
        self.struck[fault.name] += 1
        return True


def _concerns(fault: Fault, subject: Subject) -> bool:
    if fault.nth is not None and fault.nth != subject.nth:
        return False
    return fault.match in subject.prompt or fault.match in subject.correlation_id
