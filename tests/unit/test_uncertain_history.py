"""A ledger that may have forgotten submissions says so until that is settled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.ledger.spending import entry_of
from pipeline.model import State
from pipeline.reconcile.history_gap import LastUse
from pipeline.reconcile.uncertain_history import (
    OpenQuestion,
    note_question,
    note_uncertain,
    open_question,
    settle_question,
)
from tests.unit.samples import record

if TYPE_CHECKING:
    from pipeline.ledger.spending import Submission

FIRST = entry_of(
    record(
        State.DONE,
        "row",
        correlation_id="c1",
        key_id="a",
        api_url="url",
        submitted_at=1.0,
        vendor_sent_at=5.0,
    )
)


class FactsLedger:
    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        self.entries = [FIRST]

    async def submissions(self) -> list[Submission]:
        return self.entries

    async def meta_get(self, name: str) -> str | None:
        return self.facts.get(name)

    async def meta_set(self, name: str, value: str) -> None:
        self.facts[name] = value


SECOND = replace(FIRST, id="c2", key_id="b", submitted_at=2.0, vendor_sent_at=6.0)


async def test_question_that_nothing_else_raises_stays_as_it_came_up_until_it_is_settled() -> None:
    """What is submitted meanwhile, by consent to some rows, says nothing of what is forgotten."""
    ledger: Any = FactsLedger()
    assert await open_question(ledger) is None
    first = OpenQuestion(LastUse(("a", "url"), 5.0), alone=True)
    for _ in range(2):
        await note_uncertain(ledger)
        assert await open_question(ledger) == first
        ledger.entries = [FIRST, SECOND]
    await settle_question(ledger)
    assert await open_question(ledger) is None
    await note_uncertain(ledger)
    assert await open_question(ledger) == OpenQuestion(LastUse(("b", "url"), 6.0), alone=True)


async def test_question_that_comes_up_again_may_come_to_stay() -> None:
    ledger: Any = FactsLedger()
    question = OpenQuestion(LastUse(None, 3.0))
    await note_question(ledger, question)
    assert await open_question(ledger) == question
    await note_uncertain(ledger)
    assert await open_question(ledger) == question._replace(alone=True)


async def test_ledger_without_submissions_has_used_nothing() -> None:
    ledger: Any = FactsLedger()
    ledger.entries = []
    await note_uncertain(ledger)
    assert await open_question(ledger) == OpenQuestion(LastUse(), alone=True)
