"""Which rows this run may submit: those of `--select`, and of them the first `--limit`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from pipeline.errors import UsageError
from pipeline.model import Record, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.batch_plan import BatchPlan

FAILED: Final = "@failed"
"""In place of a pattern: the rows that had failed when the run began."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for: patterns of ids (all rows without any) and the most rows to submit."""

    patterns: tuple[str, ...] = ()
    limit: int | None = None

    def __bool__(self) -> bool:
        return bool(self.patterns) or self.limit is not None


def matches_id(row_id: str, patterns: Sequence[str]) -> bool:
    """Return whether an id matches one of `patterns` (shell wildcards); without any, all do."""
    globs = [pattern for pattern in patterns if pattern != FAILED]
    return not globs or any(fnmatchcase(row_id, pattern) for pattern in globs)


def submittable(plan: BatchPlan, selection: Selection) -> frozenset[str] | None:
    """Return the keys of the rows that may be submitted once the run has begun, None when all may.

    Raises `UsageError` for a pattern that no row's id matches.
    """
    if not selection:
        return None
    rows = [record for record in plan.begun().records if record.position >= 0]
    for pattern in selection.patterns:
        if pattern != FAILED and not any(fnmatchcase(row.id, pattern) for row in rows):
            raise UsageError(f"--select {pattern}: no row's id matches that; `veobatch status` lists them")
    had_failed = {before.key for before, _ in plan.requeues if before.state is State.FAILED}
    chosen = [
        row.key
        for row in rows
        if row.state is State.PENDING and _is_selected(row, selection.patterns, row.key in had_failed)
    ]
    return frozenset(chosen[: selection.limit])


def unselected_failures(records: Iterable[Record], selection: Selection) -> frozenset[str]:
    """Return the keys of the failed rows that the patterns leave out: how a run ends is not theirs to say."""
    return frozenset(
        row.key
        for row in records
        if row.state is State.FAILED and not _is_selected(row, selection.patterns, had_failed=True)
    )


def _is_selected(row: Record, patterns: Sequence[str], had_failed: bool) -> bool:
    if not patterns:
        return True
    return any(had_failed if pattern == FAILED else fnmatchcase(row.id, pattern) for pattern in patterns)
