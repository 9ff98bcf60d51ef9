"""What is known of rendering times. First version: nothing, hence the fixed clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.polling.plan import Plan, fixed_plan

if TYPE_CHECKING:
    from collections.abc import Mapping


class DurationLearner:
    """Learns, for each kind of generation, how long it renders."""

    def __init__(self, interval_s: float = 10.0) -> None:
        self.interval_s = interval_s
        self._fixed = fixed_plan(interval_s)

    def dump(self) -> dict[str, Any]:
        """Return what was learned, for `restore` in a later run; JSON can hold it."""
        return {}

    def restore(self, data: Mapping[str, Any]) -> None:
        """Take over what an earlier run dumped; anything else is ignored."""

    def plan(self, kind: str) -> Plan:
        """Return the present plan for `kind`."""
        return self._fixed

    def survived(self, kind: str, from_s: float, to_s: float) -> None:
        """Take note that a generation known to run at age `from_s` still ran at `to_s`."""

    def ended(self, kind: str, from_s: float, to_s: float) -> None:
        """Take note that a generation ended at an age in (`from_s`, `to_s`]."""

    def remaining_s(self, kind: str, age_s: float) -> float | None:
        """Return the expected residual rendering time at `age_s`; None while nothing is known."""
        return None
