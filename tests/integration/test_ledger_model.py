"""The ledger against a model of it: any sequence of steps, stale steps, groups, places and reopenings."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from pipeline.errors import Conflict
from pipeline.ledger import Ledger
from pipeline.model import LEGAL_TRANSITIONS, IllegalTransition, Record, State, Transition
from tests.integration.ledger_servers import make_record, read_history

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, TypeVar

    T = TypeVar("T")

states = st.sampled_from(State)


class LedgerMachine(RuleBasedStateMachine):
    """`known` is what the ledger must hold; `seen` are records as somebody once saw them."""

    seen = Bundle("seen")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.sqlite3"
        self.ledger = self.run(Ledger.open(self.path))
        self.known: dict[str, Record] = {}
        self.steps: dict[str, list[tuple[State, State]]] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize(target=seen)
    def first(self) -> Record:
        return self.row("r0", 0)

    @rule(target=seen, name=st.integers(1, 4))
    def add(self, name: int) -> Record:
        return self.row(f"r{name}", name)

    def row(self, name: str, position: int) -> Record:
        new = make_record(name, position)
        if new.key not in self.known:
            self.run(self.ledger.add([new]))
            self.known[new.key] = new
            self.steps[new.key] = []
        return self.known[new.key]

    @rule(target=seen, before=seen, to=states, polls=st.integers(0, 9), stem=st.sampled_from("ab"))
    def step(self, before: Record, to: State, polls: int, stem: str) -> Record:
        """One step from a record that may be long out of date."""
        after = replace(before, state=to, version=before.version + 1, polls=polls, file_stem=stem)
        if to is not before.state and to not in LEGAL_TRANSITIONS[before.state]:
            try:
                self.run(self.ledger.commit(before, after))
            except IllegalTransition:
                return before
            raise AssertionError("an illegal step was made")
        try:
            made = self.run(self.ledger.commit(before, after))
        except Conflict:
            assert not self.is_current(before)
            return self.known[before.key]
        assert made == after
        self.apply_to_model(before, after)
        return after

    @rule(
        target=seen,
        chosen=st.lists(st.tuples(seen, st.randoms(use_true_random=False)), min_size=1, max_size=6),
    )
    def group(self, chosen: list[tuple[Record, Any]]) -> Record:
        """Several steps in one transaction, of which some are stale."""
        steps = [
            Transition(
                record, record.evolve(chance.choice([record.state, *sorted(LEGAL_TRANSITIONS[record.state])]))
            )
            for record, chance in chosen
        ]
        outcomes = self.run(self.ledger.commit_many(steps))
        for step, outcome in zip(steps, outcomes, strict=True):
            assert isinstance(outcome, Conflict) is not self.is_current(step.before)
            if outcome == step.after:
                self.apply_to_model(step.before, step.after)
        return self.known[steps[0].before.key]

    @rule(record=seen, position=st.integers(-1, 9))
    def place(self, record: Record, position: int) -> None:
        self.run(self.ledger.set_positions({record.key: position}))
        self.known[record.key] = replace(self.known[record.key], position=position)

    @rule()
    def reopen(self) -> None:
        identity = self.ledger.identity
        self.run(self.ledger.close())
        self.ledger = self.run(Ledger.open(self.path))
        assert self.ledger.identity == identity

    def is_current(self, before: Record) -> bool:
        now = self.known[before.key]
        return (now.version, now.state) == (before.version, before.state)

    def apply_to_model(self, before: Record, after: Record) -> None:
        assert self.is_current(before)
        # A step leaves the row where the manifest has it now.
        self.known[after.key] = replace(after, position=self.known[after.key].position)
        self.steps[after.key].append((before.state, after.state))

    @invariant()
    def holds_what_is_known(self) -> None:
        expected = sorted(self.known.values(), key=lambda record: (record.position, record.key))
        assert self.run(self.ledger.load()) == expected

    @invariant()
    def history_matches(self) -> None:
        for key, steps in self.steps.items():
            lines = self.run(read_history(self.ledger, key))
            assert [(line.before, line.after) for line in lines] == steps
            assert [line.version for line in lines] == list(range(1, len(steps) + 1))

    def teardown(self) -> None:
        self.run(self.ledger.close())
        self.runner.close()
        self.folder.cleanup()


LedgerMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLedger = LedgerMachine.TestCase
