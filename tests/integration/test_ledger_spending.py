"""The spending of money on disk: what the steps wrote is what the rule says, in both kinds of ledger."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.errors import Conflict
from pipeline.ledger import Ledger
from pipeline.ledger.spending import SubmissionState
from pipeline.ledger.totals import Spending
from pipeline.model import State
from pipeline.plan import mark_interrupted, mark_resubmitted
from pipeline.sandbox import Fault
from tests.integration.engine_harness import PRICE_USD, EngineHarness, fast_sandbox_options
from tests.integration.ledger_servers import ledger_location, make_record
from tests.unit.test_budget_histories import History

if TYPE_CHECKING:
    from pathlib import Path

KINDS = pytest.mark.parametrize("kind", ["sqlite", "postgres"])


@KINDS
async def test_the_book_on_disk_is_the_book_of_the_rule(kind: str, tmp_path: Path) -> None:
    history = History(random.Random(7))
    for _ in range(12):
        history.plan()
        history.run(30.0)
        history.edit()
    first_seen = {step.before.key: step.before for step in reversed(history.steps)}
    where = ledger_location(kind, tmp_path)
    async with await Ledger.open(where) as ledger:
        await ledger.add(list(first_seen.values()))
        await ledger.commit_many(history.steps)
    async with await Ledger.open(where, read_only=True) as reader:
        entries = await reader.submissions()
    assert len(entries) > 20
    assert {entry.id: entry for entry in entries} == {entry.id: entry for entry in history.spending}
    assert Spending(entries).totals() == history.spending.totals()


@KINDS
async def test_a_step_that_was_not_made_writes_no_entry(kind: str, tmp_path: Path) -> None:
    row = make_record("a")
    async with await Ledger.open(ledger_location(kind, tmp_path)) as ledger:
        await ledger.add([row])
        sent = row.evolve(State.SUBMITTING, submission_no=1, correlation_id="vb.l.a.1", reserved_usd=1.2)
        await ledger.commit(row, sent)
        other = row.evolve(State.SUBMITTING, submission_no=1, correlation_id="vb.l.a.2", reserved_usd=1.2)
        with pytest.raises(Conflict):
            await ledger.commit(row, other)
        assert [entry.id for entry in await ledger.submissions()] == ["vb.l.a.1"]


@KINDS
async def test_what_the_log_says_of_a_submission_given_up_is_kept(kind: str, tmp_path: Path) -> None:
    row = make_record("a")
    where = ledger_location(kind, tmp_path)
    async with await Ledger.open(where) as ledger:
        await ledger.add([row])
        sent = row.evolve(
            State.SUBMITTING,
            submission_no=1,
            correlation_id="vb.l.\ud800",
            submitted_at=5.0,
            reserved_usd=1.2,
        )
        doubt = mark_interrupted(await ledger.commit(row, sent))
        await ledger.commit(sent, doubt)
        await ledger.commit(doubt, mark_resubmitted(doubt))
        [entry] = await ledger.submissions()
        assert (entry.state, entry.reserved_usd, entry.submitted_at) == (
            SubmissionState.MAYBE_SPENT,
            1.2,
            5.0,
        )
        learned = replace(entry, state=SubmissionState.SPENT, usd=1.0, reserved_usd=None)
        await ledger.put_submissions([learned])
        await ledger.put_submissions([replace(entry, state=SubmissionState.RELEASED)])
        [entry] = await ledger.submissions()
        assert (entry.state, entry.usd, entry.reserved_usd) == (SubmissionState.SPENT, 1.0, 1.2)


async def test_rows_in_doubt_that_are_submitted_again_stay_within_the_budget(tmp_path: Path) -> None:
    """What the lost submissions may have cost is not there to be spent again."""
    options = fast_sandbox_options(log_rows="never")
    async with EngineHarness(tmp_path, options, Fault("cut-accepted")) as house:
        house.price_of = lambda _: PRICE_USD
        limit = 3 * PRICE_USD
        settings: dict[str, Any] = {"max_cost": limit, "reconcile_after": 600, "reconcile_wait": 0.1}
        await house.run(3, concurrency=3, **settings)
        for doubt in await house.ledger.load():
            assert doubt.state is State.IN_DOUBT
            await house.ledger.commit(doubt, mark_resubmitted(doubt))
        outcome = await house.run(concurrency=3, **settings)
        assert {record.state for record in outcome.records} == {State.PENDING}
        assert len(house.sandbox_state.generations) * PRICE_USD <= limit
