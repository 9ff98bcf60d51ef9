"""What is alive in a run: turns, counts and the last word, without a loop."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.errors import StopReason
from pipeline.model import Failure, Record, State
from pipeline.run_state import RunOutcome, RunState
from tests.unit.samples import record


def test_pending_rows_take_turns_in_the_manifests_order() -> None:
    board = RunState.from_records(
        [record(name=name, index=index) for index, name in [(2, "c"), (0, "a"), (1, "b")]]
    )
    order = []
    while (found := board.next_pending(0.0)[0]) is not None:
        board.pop_pending(found)
        order.append(found.id)
    assert order == ["a", "b", "c"]
    assert board.next_pending(0.0) == (None, None)


@pytest.mark.parametrize("state", [state for state in State if state is not State.PENDING])
def test_only_pending_rows_wait(state: State) -> None:
    assert RunState.from_records([record(state)]).next_pending(0.0) == (None, None)


def test_a_row_that_left_the_manifest_is_not_submitted() -> None:
    board = RunState.from_records([record(index=-1)])
    assert board.next_pending(0.0) == (None, None)
    assert not board.busy()


def test_a_row_that_has_to_wait_lets_others_by() -> None:
    first, second = record(name="a", index=0), record(name="b", index=1)
    board = RunState.from_records([first, second])
    board.pop_pending(first)
    board.queue(first, not_before=10.0)
    assert board.next_pending(5.0) == (second, None)
    board.pop_pending(second)
    assert board.next_pending(5.0) == (None, 10.0)
    assert board.next_pending(10.0) == (first, None)


def test_a_refused_row_comes_first_only_where_that_is_asked_for_and_once_its_time_has_come() -> None:
    refused, fresh = record(name="a", index=1), record(name="b", index=0)
    board = RunState.from_records([refused, fresh])
    board.pop_pending(fresh)
    board.pop_pending(refused)
    board.queue(fresh)
    board.queue(refused, 10.0, refused=True)
    assert board.next_pending(5.0, refused_first=True) == (fresh, None)
    assert board.next_pending(10.0) == (fresh, None)
    assert board.next_pending(10.0, refused_first=True) == (refused, None)
    assert (board.open_count(), board.submittable_count(5.0, 9), board.submittable_count(10.0, 9)) == (
        2,
        1,
        2,
    )
    board.pop_pending(refused)
    assert board.next_pending(10.0, refused_first=True) == (fresh, None)
    board.pop_pending(fresh)
    assert not board.busy()


def test_a_row_that_moved_on_loses_its_turn() -> None:
    first, second = record(name="a", index=0), record(name="b", index=1)
    board = RunState.from_records([first, second])
    board.records[first.key] = first.evolve(State.FAILED)
    assert board.next_pending(0.0) == (second, None)


def test_the_first_reason_to_stop_is_kept() -> None:
    board = RunState.from_records([])
    assert board.stop_submitting(StopReason.CREDITS, "empty")
    assert not board.stop_submitting(StopReason.DISK, "full")
    assert (board.stop_reason, board.stop_message) == (StopReason.CREDITS, "empty")


@pytest.mark.parametrize("count", ["submitting", "tracked", "downloading", "checking_artifacts"])
def test_whatever_is_alive_keeps_the_run_alive(count: str) -> None:
    board = RunState.from_records([])
    assert not board.busy()
    setattr(board, count, 1)
    assert board.busy()
    board.stop_submitting(StopReason.KEY, "")
    assert board.busy()


def test_waiting_rows_keep_a_run_alive_only_while_it_submits() -> None:
    board = RunState.from_records([record()])
    assert board.busy()
    board.stop_submitting(StopReason.BUDGET, "")
    assert not board.busy()


def test_submissions_are_in_the_order_in_which_they_began_and_an_unknown_one_has_no_place() -> None:
    state = RunState({})
    first, unknown, last = (state.begin_submission() for _ in range(3))
    state.submissions[last], state.submissions[first] = "vb.last", "vb.first"
    order = state.submission_order()
    assert order["vb.first"] < order["vb.last"]
    assert len(order) == 2, "a row without a correlation id has no place"
    assert not state.submissions[unknown]


def test_poll_stats_are_written_once() -> None:
    row = record(State.GENERATING, polls=2)
    board = RunState.from_records([row])
    board.poll_counts[row.key] += 3
    board.not_yet_at[row.key] = 9.0
    assert board.take_poll_stats(row) == {"polls": 5, "not_yet_at": 9.0}
    assert board.take_poll_stats(row) == {"polls": 2}


def make_outcome(*records: Record, **facts: object) -> RunOutcome:
    board = RunState.from_records(records)
    for name, value in facts.items():
        setattr(board, name, value)
    return board.outcome()


def test_a_run_in_which_all_is_final_was_not_stopped() -> None:
    ended = make_outcome(record(State.DONE, "a"), record(State.FAILED, "b", failure=Failure("x", "y")))
    assert (ended.stop_reason, ended.message, ended.open_rows) == (None, "", ())


def test_rows_in_doubt_are_a_reason_of_their_own() -> None:
    row = record(State.IN_DOUBT)
    assert make_outcome(row, in_doubt={row.key}).stop_reason is StopReason.IN_DOUBT
    assert make_outcome(row, in_doubt={row.key}, stop_reason=StopReason.KEY).stop_reason is StopReason.KEY


def test_a_row_left_for_the_next_run_is_named() -> None:
    row = record(State.READY, "late")
    ended = make_outcome(row, unfinished={row.key: "not now"})
    assert ended.stop_reason is not None
    assert ended.message == "late: not now"
    assert ended.open_rows == (row,)


@pytest.mark.parametrize("state", list(State))
def test_which_rows_are_open(state: State) -> None:
    assert bool(make_outcome(record(state)).open_rows) is (state not in (State.DONE, State.FAILED))


def test_a_removed_row_that_was_never_sent_is_nobodys_business() -> None:
    assert make_outcome(record(State.PENDING, index=-1)).open_rows == ()
    assert make_outcome(record(State.READY, index=-1)).open_rows != ()


class PendingQueueMachine(RuleBasedStateMachine):
    """Rows queued, taken and moved at random: every pending row waits exactly until its time."""

    def __init__(self) -> None:
        super().__init__()
        self.run_state = RunState.from_records([record(name=f"r{index}", index=index) for index in range(6)])
        self.waits = dict.fromkeys(self.run_state.records, 0.0)
        self.now = 0.0

    @rule(seconds=st.floats(0, 5))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(wait=st.floats(0, 10), index=st.integers(0, 5), refused=st.booleans())
    def comes_back(self, wait: float, index: int, *, refused: bool) -> None:
        row = list(self.run_state.records.values())[index]
        if row.key not in self.waits:
            self.run_state.records[row.key] = record(name=row.id, index=index)
            self.waits[row.key] = self.now + wait
            self.run_state.queue(self.run_state.records[row.key], self.now + wait, refused=refused)

    @precondition(lambda self: self.run_state.next_pending(self.now)[0] is not None)
    @rule(refused_first=st.booleans())
    def is_taken(self, *, refused_first: bool) -> None:
        row, when = self.run_state.next_pending(self.now, refused_first=refused_first)
        assert row is not None
        assert when is None
        assert self.waits.pop(row.key) <= self.now
        self.run_state.pop_pending(row)
        self.run_state.records[row.key] = row.evolve(State.SUBMITTING)

    @invariant()
    def nobody_is_forgotten(self) -> None:
        row, when = self.run_state.next_pending(self.now)
        ready = [key for key, wait in self.waits.items() if wait <= self.now]
        assert (row is not None) is bool(ready)
        if row is None and self.waits:
            assert when == min(self.waits.values())
        assert self.run_state.busy() is bool(self.waits)


TestPendingQueue = PendingQueueMachine.TestCase
