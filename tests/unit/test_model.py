"""The table of legal steps: what may follow what, and that nothing else ever happens."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.model import (
    LEGAL_TRANSITIONS,
    MAYBE_PAID_STATES,
    PAID_STATES,
    Failure,
    IllegalTransition,
    Job,
    Record,
    State,
)
from tests.unit.samples import job, record

STATES = list(State)
STEPS = list(product(STATES, STATES))


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_a_step_is_made_or_refused_by_the_table(before: State, after: State) -> None:
    start = record(before)
    if after is before or after in LEGAL_TRANSITIONS[before]:
        moved = start.evolve(after)
        assert (moved.state, moved.version) == (after, start.version + 1)
        assert replace(moved, state=start.state, version=start.version) == start
    else:
        with pytest.raises(IllegalTransition, match=f"{before} may not become {after}"):
            start.evolve(after)


def test_every_state_has_its_row_in_the_table() -> None:
    assert set(LEGAL_TRANSITIONS) == set(STATES)
    assert all(state not in following for state, following in LEGAL_TRANSITIONS.items())


def test_a_paid_row_reaches_a_new_create_only_through_a_failure() -> None:
    """The steps that lead to paying again: none leaves GENERATING, READY or DONE but by FAILED."""
    for state in PAID_STATES:
        assert not LEGAL_TRANSITIONS[state] & {State.PENDING, State.SUBMITTING, State.IN_DOUBT}


def test_only_a_pending_row_is_submitted() -> None:
    assert [state for state in STATES if State.SUBMITTING in LEGAL_TRANSITIONS[state]] == [State.PENDING]


def test_what_is_in_doubt_leaves_to_be_tracked_tried_again_or_failed() -> None:
    assert LEGAL_TRANSITIONS[State.IN_DOUBT] == {State.GENERATING, State.PENDING, State.FAILED}
    assert {State.SUBMITTING, State.IN_DOUBT} == MAYBE_PAID_STATES - PAID_STATES


def test_every_state_can_still_end() -> None:
    for start in STATES:
        seen, edge = {start}, [start]
        while edge:
            fresh = LEGAL_TRANSITIONS[edge.pop()] - seen
            seen |= fresh
            edge += fresh
        assert {State.DONE, State.FAILED} <= seen, start


def test_staying_adds_facts_and_a_version() -> None:
    start = record(State.GENERATING)
    after = start.evolve(polls=4, not_yet_at=9.0)
    assert (after.state, after.version, after.polls) == (State.GENERATING, start.version + 1, 4)
    assert (start.polls, start.not_yet_at) == (0, None)


def test_a_fact_that_no_record_has_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        record().evolve(colour="red")


@pytest.mark.parametrize("value", [None, 7, ["a"], {"b": 1}])
def test_a_prompt_that_is_no_text_is_shown_as_none(value: object) -> None:
    odd = Job("a", "f", 0, "m", {"prompt": value, "image_url": value})
    assert (odd.prompt, odd.manifest_image) == ("", "")


def test_the_key_holds_the_id_and_the_content() -> None:
    assert job("a").key == "a@f-She laughs."
    assert job("a").key != job("a", prompt="She frowns.").key
    assert job("a", 0).key == job("a", 9).key


class RecordMachine(RuleBasedStateMachine):
    """A record led through steps at random: it is always somewhere the table allows, one version on."""

    @initialize(state=st.sampled_from(STATES))
    def found(self, state: State) -> None:
        self.record: Record = record(state)
        self.seen = [self.record]

    @rule(to=st.sampled_from(STATES), polls=st.integers(0, 9))
    def step(self, to: State, polls: int) -> None:
        before = self.record
        try:
            self.record = before.evolve(to, polls=polls)
        except IllegalTransition:
            assert to not in LEGAL_TRANSITIONS[before.state]
            assert to is not before.state
        else:
            assert to is before.state or to in LEGAL_TRANSITIONS[before.state]
            self.seen.append(self.record)

    @rule(message=st.text(max_size=20))
    def note(self, message: str) -> None:
        self.record = self.record.evolve(failure=Failure("noted", message))
        self.seen.append(self.record)

    @invariant()
    def every_version_is_one_more_than_the_one_before(self) -> None:
        versions = [made.version for made in getattr(self, "seen", [])]
        assert versions == list(range(versions[0], versions[0] + len(versions))) if versions else True

    @invariant()
    def what_the_row_is_never_changes(self) -> None:
        for made in getattr(self, "seen", []):
            assert (made.key, made.body, made.file_stem) == (
                self.record.key,
                self.record.body,
                self.record.file_stem,
            )


TestRecordMachine = RecordMachine.TestCase
