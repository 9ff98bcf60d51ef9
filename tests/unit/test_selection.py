"""Which rows a run may submit: those of --select, and of them the first --limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.errors import ExitCode, UsageError
from pipeline.model import Failure, State
from pipeline.plan import RetrySelection, make_plan
from pipeline.run_state import RunOutcome, RunState
from pipeline.runner.execute import exit_code
from pipeline.selection import Selection, matches_id, submittable, unselected_failures
from tests.unit.samples import job, record

if TYPE_CHECKING:
    from pipeline.batch_plan import BatchPlan

IDS = ("cat", "cat.2", "dog", "emu")


def plan_with_a_failure(retry: RetrySelection | None = None) -> BatchPlan:
    """`cat` is done, `dog` has failed, the others are new."""
    known = [
        record(State.DONE, "cat", 0),
        record(State.FAILED, "dog", 2, failure=Failure("generation_error", "x", retryable=True)),
    ]
    return make_plan([job(name, index) for index, name in enumerate(IDS)], known, retry=retry)


@pytest.mark.parametrize(
    ("patterns", "limit", "wanted"),
    [
        (("*",), None, ["cat.2", "emu"]),
        ((), 1, ["cat.2"]),
        (("e*",), None, ["emu"]),
        (("cat*", "emu"), 1, ["cat.2"]),
        (("cat",), None, []),
        (("@failed",), None, []),
    ],
)
def test_selected_rows_in_the_manifests_order(
    patterns: tuple[str, ...], limit: int | None, wanted: list[str]
) -> None:
    plan = plan_with_a_failure()
    keys = submittable(plan, Selection(patterns, limit))
    assert keys is not None
    assert [row.id for row in plan.records if row.key in keys] == wanted


def test_without_a_selection_every_row_may_be_submitted() -> None:
    assert submittable(plan_with_a_failure(), Selection()) is None


def test_failed_rows_are_retried_and_selected_by_their_name() -> None:
    plan = plan_with_a_failure(RetrySelection(True))
    assert submittable(plan, Selection(("@failed",))) == frozenset({"dog@f-She laughs."})
    plan = plan_with_a_failure(RetrySelection(True, is_selected=lambda row_id: matches_id(row_id, ("e*",))))
    assert plan.requeues == ()


def test_a_pattern_without_a_row_is_an_error() -> None:
    with pytest.raises(UsageError, match="--select bird"):
        submittable(plan_with_a_failure(), Selection(("bird*",)))


def test_the_outcome_speaks_of_what_was_selected() -> None:
    plan = plan_with_a_failure()
    state = RunState.from_records(plan.records, submittable(plan, Selection(("e*",))))
    emu = next(row for row in plan.records if row.id == "emu")
    assert [key for _, _, key in state.pending] == [emu.key]
    outcome = state.outcome()
    assert [row.id for row in outcome.open_rows] == ["emu"]
    assert {key.partition("@")[0] for key in outcome.unselected} == {"cat.2"}


@pytest.mark.parametrize(
    ("patterns", "left_out", "code"),
    [((), set(), ExitCode.SOME_FAILED), (("e*",), {"dog"}, ExitCode.DONE), (("@failed",), set(), 1)],
)
def test_only_failures_that_were_selected_count(
    patterns: tuple[str, ...], left_out: set[str], code: int
) -> None:
    records = plan_with_a_failure().records
    left = unselected_failures(records, Selection(patterns))
    assert {key.partition("@")[0] for key in left} == left_out
    ended = tuple(row for row in records if row.state is not State.PENDING)
    assert exit_code(RunOutcome(ended, None, "", {}, left)) == code
