"""What a start makes of a manifest and a ledger: tables for each case, and properties for any mixture."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise, product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model import LEGAL_TRANSITIONS, MAYBE_PAID_STATES, PAID_STATES, Failure, Job, Record, State
from pipeline.plan import PAID_FAILURES, RetrySelection, make_plan
from pipeline.results.csv_rows import visible_records
from tests.unit.samples import job, record

if TYPE_CHECKING:
    from pipeline.batch_plan import BatchPlan

ALL = RetrySelection(enabled=True)


def by_id(plan: BatchPlan) -> dict[str, Record]:
    return {made.id: made for made in plan.records if made.position >= 0}


def ledger_after(plan: BatchPlan) -> list[Record]:
    """What the ledger holds after a run has begun with a plan."""
    return list(plan.begun().records)


def test_a_first_run_adds_every_row_in_order() -> None:
    jobs = [job("a", 0), job("b", 1, duration=4), job("c", 2)]
    plan = make_plan(jobs, [])
    assert [made.id for made in plan.added] == ["a", "b", "c"]
    assert [made.position for made in plan.records] == [0, 1, 2]
    assert (plan.transitions, plan.positions, plan.edited, plan.removed) == ((), {}, (), ())
    assert json.loads(plan.added[1].body) == dict(jobs[1].body)
    assert all(made.state is State.PENDING for made in plan.added)


@pytest.mark.parametrize("state", list(State))
def test_a_row_that_stays_stays_what_it_is(state: State) -> None:
    known = record(state)
    plan = make_plan([job()], [known])
    assert plan.added == ()
    if state is State.SUBMITTING:
        [(before, after)] = plan.transitions
        assert (before, after.state) == (known, State.IN_DOUBT)
        assert (after.doubted_at, after.correlation_id) == (known.submitted_at, known.correlation_id)
        assert after.failure is not None
    else:
        assert plan.transitions == ()
        assert plan.records == (known,)


@pytest.mark.parametrize("state", list(State))
def test_a_picture_with_another_name_gives_its_row_that_name_and_nothing_else(state: State) -> None:
    picture = f"sha256:{7:064x}"
    known = record(
        state, body=json.dumps({"image_url": picture}, separators=(",", ":")), manifest_image="old.jpg"
    )
    [renamed] = make_plan([replace(job(), image="new/name.jpg")], [known]).records
    assert renamed.manifest_image == "new/name.jpg"
    if state is State.SUBMITTING:
        assert renamed.state is State.IN_DOUBT
    else:
        assert renamed == known.evolve(state, manifest_image="new/name.jpg")


def test_an_address_is_kept_as_it_was_sent() -> None:
    known = record(State.DONE)
    assert make_plan([replace(job(), image="https://EXAMPLE.com/mona.jpg")], [known]).transitions == ()


def test_moving_rows_about_moves_places_and_nothing_else() -> None:
    known = [record(State.DONE, "a", 0), record(State.GENERATING, "b", 1), record(State.PENDING, "c", 2)]
    plan = make_plan([job("c", 0), job("a", 1), job("b", 2)], known)
    assert (plan.added, plan.transitions, plan.edited, plan.removed) == ((), (), (), ())
    assert plan.positions == {known[2].key: (0, 2), known[0].key: (1, 3), known[1].key: (2, 4)}
    assert [made.id for made in plan.records] == ["c", "a", "b"]
    assert [made.version for made in plan.records] == [0, 3, 3]


def test_a_comment_above_rows_moves_their_lines_and_nothing_else() -> None:
    jobs = [replace(job(f"r{n}", n), line=n + 2) for n in range(2)]
    known = ledger_after(make_plan(jobs, []))
    plan = make_plan([replace(one, line=one.line + 1) for one in jobs], known)
    assert plan.positions == {one.key: (one.index, one.line + 1) for one in jobs}
    assert [row.line for row in plan.records] == [3, 4]
    assert (plan.added, plan.transitions, plan.edited, plan.removed) == ((), (), (), ())


def test_new_rows_share_what_is_equal() -> None:
    jobs = [replace(job(f"row-{n}", n), line=n + 1) for n in range(1000, 1003)]
    added = make_plan(jobs, []).added
    assert [row.position for row in added] == [1000, 1001, 1002]
    assert all(row.file_stem is row.id for row in added)
    assert all(row.position is before.line for before, row in pairwise(added))


def test_new_rows_join_those_that_are_known() -> None:
    known = [record(State.DONE, "a", 0), record(State.FAILED, "b", 1)]
    plan = make_plan([job("new", 0), job("a", 1), job("b", 2)], known)
    assert [made.id for made in plan.added] == ["new"]
    assert plan.transitions == ()


@pytest.mark.parametrize("state", list(State))
def test_a_removed_row_is_kept_and_listed_when_money_is_in_it(state: State) -> None:
    known = [record(state, "gone", 0), record(State.DONE, "a", 1)]
    plan = make_plan([job("a", 0)], known)
    assert plan.positions[known[0].key] == (-1, known[0].line)
    assert [made.id for made in plan.removed] == (["gone"] if state in MAYBE_PAID_STATES else [])
    assert [made.id for made in plan.records] == ["a", "gone"]
    assert plan.added == ()


def test_a_removed_row_that_comes_back_is_the_same_row() -> None:
    gone = replace(record(State.GENERATING, "a"), position=-1)
    plan = make_plan([job("a", 0)], [gone])
    assert plan.positions == {gone.key: (0, gone.line)}
    assert (plan.added, plan.removed) == ((), ())
    assert plan.records[0].generation_id == gone.generation_id


@pytest.mark.parametrize("state", list(State))
def test_an_edited_row_is_a_new_job_beside_the_old_one(state: State) -> None:
    old = record(state, "a", 0)
    plan = make_plan([job("a", 0, prompt="She frowns.")], [old])
    [new] = plan.added
    assert (new.state, new.submission_no, new.generation_id) == (State.PENDING, 0, "")
    assert [(was.key, now.key) for was, now in plan.edited] == [(old.key, new.key)]
    assert new.file_stem != old.file_stem
    kept = next(made for made in plan.records if made.key == old.key)
    assert kept.position == -1
    assert kept.generation_id == old.generation_id


def test_a_renamed_row_is_a_new_job_and_no_edit() -> None:
    plan = make_plan([job("new-name", 0)], [record(State.DONE, "old-name", 0)])
    assert [made.id for made in plan.added] == ["new-name"]
    assert plan.edited == ()
    assert [made.id for made in plan.removed] == ["old-name"]


def test_names_are_given_once_and_kept_under_another_template() -> None:
    first = make_plan([job("a", 0), job("b", 1)], [], name_template="{index:03d}-{id}")
    assert [made.file_stem for made in first.added] == ["000-a", "001-b"]
    again = make_plan([job("b", 0), job("a", 1), job("c", 2)], ledger_after(first), name_template="{id}")
    assert {made.id: made.file_stem for made in again.records} == {"a": "000-a", "b": "001-b", "c": "c"}


def failed(code: str, name: str = "row", index: int = 0, *, generation_id: str = "") -> Record:
    words = Failure(code, "the vendor's words", retryable=code == "generation_error")
    facts = {"failure": words, "finished_at": 9.0, "faults": 2, "generation_id": generation_id}
    return record(State.FAILED, name, index, **facts)


@pytest.mark.parametrize(
    ("retry", "code", "again"),
    [
        (RetrySelection(), "refused", False),
        (None, "refused", False),
        (RetrySelection(codes=frozenset({"refused"})), "refused", False),
        (ALL, "refused", True),
        (RetrySelection(enabled=True, codes=frozenset({"refused"})), "refused", True),
        (RetrySelection(enabled=True, codes=frozenset({"refused", "x"})), "generation_error", False),
    ],
)
def test_failed_rows_are_tried_again_only_as_asked(
    retry: RetrySelection | None, code: str, again: bool
) -> None:
    plan = make_plan([job()], [failed(code, generation_id="g")], retry=retry)
    if not again:
        assert plan.requeues == ()
        return
    [(_, after)] = plan.requeues
    assert (after.state, after.failure, after.generation_id, after.faults) == (State.PENDING, None, "", 0)
    assert after.submission_no == 1  # the next create gets a correlation id of its own


def test_a_failure_that_is_not_known_is_covered_only_by_all() -> None:
    nameless = replace(failed("x"), failure=None)
    assert len(make_plan([job()], [nameless], retry=ALL).requeues) == 1
    only = RetrySelection(enabled=True, codes=frozenset({"x"}))
    assert make_plan([job()], [nameless], retry=only).requeues == ()


@pytest.mark.parametrize("code", sorted(PAID_FAILURES))
def test_what_was_paid_is_fetched_again_and_never_bought_again(code: str) -> None:
    plan = make_plan([job()], [failed(code, generation_id="g")], retry=ALL)
    [(_, after)] = plan.requeues
    assert (after.state, after.generation_id, after.failure) == (State.GENERATING, "g", None)


def test_a_failed_row_that_was_removed_is_left_alone() -> None:
    gone = failed("refused", "gone")
    assert make_plan([job("other")], [gone], retry=ALL).requeues == ()


@pytest.mark.parametrize("state", [State.SUBMITTING, State.IN_DOUBT])
def test_rows_in_doubt_are_sent_again_only_on_the_users_word(state: State) -> None:
    known = record(state, reserved_usd=1.2, doubted_at=5.0)
    plan = make_plan([job()], [known], resubmit_in_doubt=True)
    [(before, after)] = plan.requeues
    assert plan.records == (before,), "a row stays in doubt until the run begins"
    assert (before.state, before.correlation_id) == (State.IN_DOUBT, known.correlation_id)
    assert (after.state, after.reserved_usd, after.doubted_at, after.failure) == (
        State.PENDING,
        None,
        None,
        None,
    )
    assert after.correlation_id == ""
    assert make_plan([job()], [known]).requeues == ()


def test_only_rows_in_doubt_that_are_selected_are_sent_again() -> None:
    known = [record(State.IN_DOUBT, name, index) for index, name in enumerate("ab")]
    selection = RetrySelection(is_selected=lambda row_id: row_id == "a")
    plan = make_plan([job("a", 0), job("b", 1)], known, retry=selection, resubmit_in_doubt=True)
    assert [after.id for _, after in plan.requeues] == ["a"]
    assert {row.id: row.state for row in plan.begun().records} == {"a": State.PENDING, "b": State.IN_DOUBT}


def test_a_run_that_submits_few_rows_requeues_no_others_to_be_submitted() -> None:
    known = [
        failed("refused", "a", 0),
        failed("refused", "b", 1),
        failed("no_video", "c", 2, generation_id="g"),
    ]
    plan = make_plan([job(name, index) for index, name in enumerate("abc")], known, retry=ALL)
    limited = plan.submitting_only(frozenset({known[0].key}))
    assert [(after.id, after.state) for _, after in limited.requeues] == [
        ("a", State.PENDING),
        ("c", State.GENERATING),  # fetched, which is no submission
    ]


def test_a_row_that_has_changed_since_is_not_requeued() -> None:
    known = record(State.IN_DOUBT)
    plan = make_plan([job()], [known], resubmit_in_doubt=True)
    found = known.evolve(State.GENERATING, generation_id="g")
    current = plan.with_current({known.key: found})
    assert (current.records, current.requeues) == ((found,), ())


@pytest.mark.parametrize("state", [State.SUBMITTING, State.IN_DOUBT])
def test_a_removed_row_in_doubt_stays_in_doubt_since_nothing_would_send_it(state: State) -> None:
    """It may be paid: as PENDING it would be forgotten, neither listed nor looked for in the log."""
    plan = make_plan([job("other")], [record(state, "gone")], resubmit_in_doubt=True)
    gone = next(made for made in plan.records if made.id == "gone")
    assert gone.state is State.IN_DOUBT
    assert [made.id for made in plan.removed] == ["gone"]


JOBS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(["one", "two", "three"])),
    unique_by=lambda row: row[0],
    max_size=6,
).map(lambda rows: [job(name, index, prompt=words) for index, (name, words) in enumerate(rows)])
CODES = st.sampled_from(["refused", "generation_error", "no_video", "not_a_video", "content_refused"])


@st.composite
def ledger_records(draw: st.DrawFn) -> list[Record]:
    known = []
    chosen = draw(st.sets(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["one", "two", "three"]))))
    for index, (name, words) in enumerate(sorted(chosen)):
        state = draw(st.sampled_from(list(State)))
        made = replace(
            record(state, name, draw(st.sampled_from([-1, index]))),
            key=job(name, prompt=words).key,
            fingerprint=f"f-{words}",
            file_stem=f"{name}-{words}",
        )
        if state is State.FAILED:
            lost = Failure(draw(CODES), "words")
            made = replace(made, failure=lost, generation_id=draw(st.sampled_from(["", "g"])))
        known.append(made)
    return known


RETRIES = st.sampled_from([None, ALL, RetrySelection(enabled=True, codes=frozenset({"refused", "no_video"}))])


@given(JOBS, ledger_records(), RETRIES, st.booleans())
def test_planning_again_changes_nothing(
    jobs: list[Job], known: list[Record], retry: RetrySelection | None, resubmit: bool
) -> None:
    once = make_plan(jobs, known, retry=retry, resubmit_in_doubt=resubmit)
    twice = make_plan(jobs, ledger_after(once), retry=retry, resubmit_in_doubt=resubmit)
    assert (twice.added, twice.positions, twice.transitions, twice.edited) == ((), {}, (), ())
    assert (twice.requeues, twice.records) == ((), once.begun().records)


@given(JOBS, ledger_records(), RETRIES, st.booleans())
def test_no_row_is_lost_and_every_step_is_legal(
    jobs: list[Job], known: list[Record], retry: RetrySelection | None, resubmit: bool
) -> None:
    plan = make_plan(jobs, known, retry=retry, resubmit_in_doubt=resubmit)
    now = {made.key: made for made in plan.begun().records}
    assert now.keys() == {made.key for made in known} | {row.key for row in jobs}
    assert [made.key for made in plan.records if made.position >= 0] == [row.key for row in jobs]
    assert len({made.file_stem for made in plan.records}) == len(now)
    for before, after in (*plan.transitions, *plan.requeues):
        assert after.state in LEGAL_TRANSITIONS[before.state]
        assert after.version == before.version + 1
    for was in known:
        after = now[was.key]
        assert (after.body, after.file_stem, after.submission_no) == (
            was.body,
            was.file_stem,
            was.submission_no,
        )
        if was.state in PAID_STATES:
            assert (after.state, after.generation_id) == (was.state, was.generation_id)
        if was.state in MAYBE_PAID_STATES and after.state is State.PENDING:
            assert resubmit
            assert after.position >= 0


@given(JOBS, ledger_records(), RETRIES, st.booleans(), st.randoms())
def test_the_ledgers_order_does_not_matter(
    jobs: list[Job], known: list[Record], retry: RetrySelection | None, resubmit: bool, chance: object
) -> None:
    shuffled = sorted(known, key=lambda made: hash((made.key, id(chance))))
    first = make_plan(jobs, known, retry=retry, resubmit_in_doubt=resubmit)
    second = make_plan(jobs, shuffled, retry=retry, resubmit_in_doubt=resubmit)
    assert first.records == second.records


@pytest.mark.parametrize(("was", "resubmit"), list(product(State, [False, True])))
def test_the_steps_are_taken_from_records_as_they_are_placed_now(was: State, resubmit: bool) -> None:
    known = [record(was, "a", 5)]
    plan = make_plan([job("a", 0)], known, retry=ALL, resubmit_in_doubt=resubmit)
    for before, _ in plan.transitions:
        assert (before.version, before.state, before.position) == (known[0].version, was, 0)
    for before, _ in plan.requeues:
        assert (before, before.position) == (plan.records[0], 0)


def test_what_was_paid_is_fetched_again_also_for_a_row_that_left_the_manifest() -> None:
    """An edited row is a new one; the old one's video may still come, and nothing is bought for it."""
    paid = replace(record(State.FAILED, "gone"), failure=Failure("no_video", "no"), generation_id="g")
    [(_, after)] = make_plan([job()], [paid], retry=ALL).requeues
    assert (after.state, after.generation_id, after.position) == (State.GENERATING, "g", -1)
    assert make_plan([job()], [paid]).requeues == ()


@pytest.mark.parametrize("code", ["generation_error", "no_video", "not_a_video", "anything"])
def test_what_was_called_completed_once_is_only_ever_fetched(code: str) -> None:
    """Also when the vendor says later that it failed: it has charged for it."""
    paid = replace(
        record(State.FAILED), failure=Failure(code, "no", retryable=True), generation_id="g", completed_at=5.0
    )
    [(_, after)] = make_plan([job()], [paid], retry=ALL).requeues
    assert (after.state, after.generation_id, after.completed_at) == (State.GENERATING, "g", 5.0)


def test_a_charged_failed_row_that_was_edited_is_still_listed() -> None:
    charged = replace(record(State.FAILED, "gone"), failure=Failure("no_video", "no"), usd_spent=1.2)
    plan = make_plan([job("other")], [charged])
    assert [row.id for row in plan.removed] == ["gone"]
    assert [row.id for row in visible_records(plan.records)] == ["other", "gone"]
