"""Rows whose creates are answered with 404: which of them are put back, and which are forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pipeline.errors import Conflict, StopReason
from pipeline.model import Failure, Record, State
from pipeline.run_state import RunState
from pipeline.submit.not_found_responses import NotFoundRows
from pipeline.submit.refused_rows import MIN_ROWS
from tests.unit.samples import record

if TYPE_CHECKING:
    from collections.abc import Callable

NOT_FOUND = Failure("not_found", "404")
ROWS = [record(State.FAILED, f"row {number}", number, failure=NOT_FOUND) for number in range(MIN_ROWS + 1)]


class FakeRun:
    """Commits what it is given, but for rows that another process has `taken`."""

    def __init__(self) -> None:
        self.state = RunState({row.key: row for row in ROWS})
        self.taken: set[str] = set()
        self.left: list[str] = []
        self.leave_to_other_process: Callable[[str], None] = self.left.append

    def stop_submitting(self, reason: StopReason, message: str) -> None:
        self.state.stop_submitting(reason, message)

    async def commit(self, before: Record, after: Record) -> Record:
        if after.key in self.taken:
            raise Conflict(after.key)
        self.state.records[after.key] = after
        return after

    def states(self) -> list[State]:
        return [self.state.records[row.key].state for row in ROWS]


@pytest.fixture
def run() -> Any:
    return FakeRun()


async def test_rows_are_kept_until_a_create_is_accepted(run: Any) -> None:
    rows = NotFoundRows(run)
    for row in ROWS[:2]:
        await rows.on_not_found(row, NOT_FOUND)
    assert run.state.may_come_back == {row.key for row in ROWS[:2]}
    rows.on_accepted()
    assert run.state.may_come_back == set()
    await rows.put_back()
    assert set(run.states()) == {State.FAILED}
    assert run.state.stop_reason is None


async def test_each_row_comes_back_once_it_is_the_models_fault(run: Any) -> None:
    rows = NotFoundRows(run)
    for row in ROWS:
        await rows.on_not_found(row, NOT_FOUND)
    assert run.states() == [State.PENDING] * len(ROWS)
    assert run.state.stop_reason is StopReason.MODEL
    assert len(run.state.pending) == len(ROWS)


async def test_row_comes_back_at_once_where_the_fault_was_found_elsewhere(run: Any) -> None:
    """On a cluster another worker's creates have shown it, while this one was on its way."""
    run.stop_submitting(StopReason.MODEL, "404")
    await NotFoundRows(run).on_not_found(ROWS[0], NOT_FOUND)
    assert run.states()[:2] == [State.PENDING, State.FAILED]


async def test_row_that_another_process_has_keeps_no_other_from_coming_back(run: Any) -> None:
    run.taken = {ROWS[0].key}
    rows = NotFoundRows(run)
    for row in ROWS[:MIN_ROWS]:
        await rows.on_not_found(row, NOT_FOUND)
    assert run.states()[:MIN_ROWS] == [State.FAILED, *[State.PENDING] * (MIN_ROWS - 1)]
    assert run.left == [ROWS[0].key]
