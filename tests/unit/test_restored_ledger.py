"""A ledger that has forgotten submissions: when it may have, and how the log gives them back."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.batch import ledger_memory
from pipeline.batch.ledger_memory import LedgerMemory, Recall, read_memory
from pipeline.client import LogRow
from pipeline.model import Record, State
from pipeline.reconcile.restored_ledger import Memory, match_forgotten, may_have_forgotten
from pipeline.submit.create import correlation_id
from tests.unit.samples import record
from tests.unit.vendor_history import iso

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = "cafe"
SENT_AT = 1_800_000_000.0
PENDING = record(State.PENDING, "row", 0)
SUBMITTED = record(State.DONE, "done", 1, submission_no=3)


@pytest.mark.parametrize(
    ("records", "runs", "memory", "uncertain", "may"),
    [
        ([PENDING], 0, None, False, False),
        ([PENDING], 0, None, True, True),
        ([PENDING], 1, None, False, True),
        ([PENDING, SUBMITTED], 0, None, False, True),
        ([PENDING, SUBMITTED], 2, Memory(2, 3), False, False),
        ([PENDING, SUBMITTED], 2, Memory(2, 3), True, True),
        ([PENDING, SUBMITTED], 2, Memory(3, 3), False, True),
        ([PENDING, SUBMITTED], 2, Memory(2, 4), False, True),
        ([PENDING, SUBMITTED], 3, Memory(2, 2), False, False),
    ],
)
def test_ledger_may_have_forgotten_what_somebody_remembers_better(
    records: list[Record], runs: int, memory: Memory | None, *, uncertain: bool, may: bool
) -> None:
    assert may_have_forgotten(records, runs, memory, uncertain=uncertain) is may


def logged(of: Record, number: int, *, succeeded: bool = True, at: float = SENT_AT) -> dict[str, LogRow]:
    name = correlation_id(IDENTITY, of, number, "n")
    return {name: LogRow(name, f"g-{number}", "r", succeeded, "m", iso(at), 1.2 * succeeded)}


def test_pending_row_gets_its_forgotten_generation() -> None:
    [step] = match_forgotten([PENDING, SUBMITTED], logged(PENDING, 2), (), IDENTITY)
    after = step.after
    assert (after.key, after.state, after.generation_id) == (PENDING.key, State.GENERATING, "g-2")
    assert (after.submission_no, after.vendor_sent_at, after.submitted_at) == (2, SENT_AT, SENT_AT)
    assert after.correlation_id == correlation_id(IDENTITY, PENDING, 2, "n")


def test_newest_of_several_generations_is_taken() -> None:
    rows = logged(PENDING, 2, at=SENT_AT + 5) | logged(PENDING, 1)
    assert match_forgotten([PENDING], rows, (), IDENTITY)[0].after.generation_id == "g-2"


@pytest.mark.parametrize("state", [State.GENERATING, State.IN_DOUBT])
def test_row_under_way_or_in_doubt_gets_what_was_submitted_since(state: State) -> None:
    """Since the copy was made its submission may have failed, or been proven absent, and been made again."""
    [step] = match_forgotten([record(state, "row")], logged(PENDING, 2), (), IDENTITY)
    assert (step.after.state, step.after.generation_id) == (State.GENERATING, "g-2")


@pytest.mark.parametrize("state", [State.DONE, State.READY])
def test_rows_that_have_their_clip_are_left(state: State) -> None:
    assert match_forgotten([record(state, "row")], logged(PENDING, 2), (), IDENTITY) == []


def test_what_is_known_or_failed_or_another_ledgers_is_left() -> None:
    rows = logged(PENDING, 1)
    assert match_forgotten([PENDING], rows, rows, IDENTITY) == []
    assert match_forgotten([PENDING], logged(PENDING, 1, succeeded=False), (), IDENTITY) == []
    assert match_forgotten([record(State.PENDING, "another")], rows, (), IDENTITY) == []


def test_what_the_log_charges_for_is_completed() -> None:
    """A status that calls it failed from now on buys no other."""
    [step] = match_forgotten([PENDING], logged(PENDING, 1), (), IDENTITY)
    assert step.after.completed_at == SENT_AT
    name, row = logged(PENDING, 1).popitem()
    [step] = match_forgotten([PENDING], {name: replace(row, usd=0.0)}, (), IDENTITY)
    assert step.after.completed_at is None


def test_a_log_that_was_read_too_soon_is_read_again_with_its_key() -> None:
    memory = Memory(2, 9, at=1000.0, key_ids=frozenset("ab"))
    noticed = Recall(1100.0)
    soon = noticed.after_reading("a", memory, 1200.0, 600.0)
    assert "run again in 400 s" in soon.obstacle(memory, 1200.0, 600.0)
    later = soon.after_reading("b", memory, 1700.0, 600.0)
    assert "with each key" in later.obstacle(memory, 1700.0, 600.0)
    assert later.after_reading("a", memory, 1800.0, 600.0).obstacle(memory, 1800.0, 600.0) == ""


def test_each_submission_is_remembered_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed within the second, and whose ledger is put back then, would buy the row again."""
    monkeypatch.setattr(ledger_memory, "memory_path", lambda identity: tmp_path / identity)
    api: Any = SimpleNamespace(key=SimpleNamespace(secret="k"), vendor_now=lambda: SENT_AT)
    memory = LedgerMemory(api, IDENTITY, 1, [PENDING])
    for number in (1, 2):
        memory.on_transition(PENDING, replace(PENDING, submission_no=1))
        remembered = read_memory(IDENTITY)
        assert remembered is not None
        assert remembered.submissions == number
