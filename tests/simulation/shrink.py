"""Fewer faults that still break the rule: whole kinds first, then ever smaller parts of what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.simulation.simulate import Result, simulate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.simulation.chance import Fault

MAX_TRIES: Final = 300


def shrink(found: Result, max_tries: int = MAX_TRIES) -> Result:
    """Return a run of the same seed that breaks the same rule with as few faults as were found, told."""
    skipped: frozenset[Fault] = frozenset()
    fewest, tries = found, 0
    cluster = found.history.options.workers > 0
    for group in _groups(found.faults):
        left_out = group & frozenset(fewest.faults)
        if left_out and tries < max_tries:
            tries += 1
            tried = simulate(found.seed, skipped=skipped | left_out, focus=found.focus, cluster=cluster)
            # Without a fault the world may go another way, and meet more of others.
            if _rule(tried) == _rule(found) and len(tried.faults) < len(fewest.faults):
                fewest, skipped = tried, skipped | left_out
    return simulate(found.seed, skipped=skipped, focus=found.focus, cluster=cluster, told=True)


def _groups(faults: Sequence[Fault]) -> Iterator[frozenset[Fault]]:
    """Yield what to leave out together: each kind, then halves, quarters, ..., single faults."""
    for kind in sorted({(fault.point, fault.kind) for fault in faults}):
        yield frozenset(fault for fault in faults if (fault.point, fault.kind) == kind)
    size = len(faults)
    while size > 1:
        size = (size + 1) // 2
        for start in range(0, len(faults), size):
            yield frozenset(faults[start : start + size])


def _rule(result: Result) -> str:
    return "" if result.violation is None else result.violation.rule
