"""Fewer faults that still break the rule: whole kinds first, then one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.simulation.simulate import Result, simulate

if TYPE_CHECKING:
    from tests.simulation.chance import Fault

MAX_TRIES: Final = 300


def shrink(found: Result) -> Result:
    """Return a run of the same seed that breaks the same rule with as few faults as were found, told."""
    skipped: frozenset[Fault] = frozenset()
    fewest, tries = found, 0
    kinds = sorted({(fault.point, fault.kind) for fault in found.faults})
    for group in (*kinds, *found.faults):
        left_out = frozenset(f for f in fewest.faults if group in ((f.point, f.kind), f))
        if left_out and tries < MAX_TRIES:
            tries += 1
            tried = simulate(found.seed, skipped=skipped | left_out)
            # Without a fault the world may go another way, and meet more of others.
            if _rule(tried) == _rule(found) and len(tried.faults) < len(fewest.faults):
                fewest, skipped = tried, skipped | left_out
    return simulate(found.seed, skipped=skipped, told=True)


def _rule(result: Result) -> str:
    return "" if result.violation is None else result.violation.rule
