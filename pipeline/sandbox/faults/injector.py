"""Which fault is triggered when: for which jobs, at which opportunities, how often. Pure."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


class FaultPoint(StrEnum):
    """Where a fault acts."""

    CREATE = "create"
    STATUS = "status"
    GENERATION = "generation"
    LOG_ROW = "log row"
    LOG_CALL = "log call"
    ACCOUNT = "account call"
    CATALOG = "catalog call"
    CDN = "cdn"


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to misbehave, by its name in `FAULTS`.

    It applies to the jobs whose prompt or correlation id contains `match` ("" is all of them), or only to
    the `nth` create (from 1). It is triggered at a seeded `share` of its opportunities, at most `times` a
    job (None: always), not at the first `after` opportunities of each job, and at most `total` times in all.
    A job is a body: the same body created again is the same job. `value` is the fault's own parameter, where
    it has one. `shape` is the error shape of its answer, None the sandbox's; `with_inference_id` adds
    `x-inference-id` to a gateway's page.
    """

    name: str
    match: str = ""
    nth: int | None = None
    share: float = 1.0
    times: int | None = None
    after: int = 0
    total: int | None = None
    value: float | str | None = None
    shape: Literal["classic", "problem"] | None = None
    with_inference_id: bool = False

    def number(self, default: float) -> float:
        """`value` as a number, `default` if there is none."""
        return default if self.value is None else float(self.value)

    def text(self, default: str) -> str:
        """`value` as text, `default` if there is none."""
        return default if self.value is None else str(self.value)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Which job a request is about. `key` tells jobs apart, `nth` is the create's number, from 1."""

    key: str
    prompt: str = ""
    correlation_id: str = ""
    nth: int = 0


@dataclass(slots=True)
class FaultInjector:
    """The faults of one sandbox, and how often each had an opportunity and was triggered, by job."""

    seed: int
    fault_points: Mapping[str, FaultPoint]
    faults: list[Fault] = field(default_factory=list)
    triggered: Counter[str] = field(default_factory=Counter)
    _opportunities: Counter[tuple[int, str]] = field(default_factory=Counter)
    _triggered_per_job: Counter[tuple[int, str]] = field(default_factory=Counter)
    _triggered_in_total: Counter[int] = field(default_factory=Counter)

    def add(self, fault: Fault) -> None:
        """Raises `ValueError` for an unknown name and a share outside 0 to 1."""
        if fault.name not in self.fault_points:
            raise ValueError(
                f"no fault is called {fault.name!r}; there are {', '.join(sorted(self.fault_points))}"
            )
        if not 0 <= fault.share <= 1:
            raise ValueError(f"{fault.name}: a share must be from 0 to 1, not {fault.share}")
        self.faults.append(fault)

    def pick(self, point: FaultPoint, context: RequestContext) -> Fault | None:
        """The first fault of that point that is triggered now; it is counted."""
        for index, fault in enumerate(self.faults):
            if self.fault_points[fault.name] is point and self._try_trigger(index, fault, context):
                return fault
        return None

    def pick_all(self, point: FaultPoint, context: RequestContext) -> tuple[Fault, ...]:
        """Every fault of that point that is triggered now; each is counted."""
        return tuple(
            fault
            for index, fault in enumerate(self.faults)
            if self.fault_points[fault.name] is point and self._try_trigger(index, fault, context)
        )

    def _try_trigger(self, index: int, fault: Fault, context: RequestContext) -> bool:
        if not _matches(fault, context):
            return False
        counter_key = (index, context.key)
        opportunity = self._opportunities[counter_key]
        self._opportunities[counter_key] += 1
        if opportunity < fault.after or (
            fault.times is not None and self._triggered_per_job[counter_key] >= fault.times
        ):
            return False
        if fault.total is not None and self._triggered_in_total[index] >= fault.total:
            return False
        if (
            fault.share < 1
            and random.Random(f"{self.seed}/{counter_key}/{opportunity}").random() >= fault.share
        ):
            return False
        self._triggered_per_job[counter_key] += 1
        self._triggered_in_total[index] += 1
        self.triggered[fault.name] += 1
        return True


def _matches(fault: Fault, context: RequestContext) -> bool:
    if fault.nth is not None and fault.nth != context.nth:
        return False
    return fault.match in context.prompt or fault.match in context.correlation_id
