"""The ledger's promises, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import Conflict, GenerationTaken, LedgerError
from pipeline.ledger import Ledger
from pipeline.model import Artifact, Failure, IllegalTransition, Media, State, Transition
from tests.integration.ledger_servers import file_names, ledger_location, make_record, read_history

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return ledger_location(request.param, tmp_path)


@pytest.fixture
async def ledger(where: str) -> AsyncIterator[Ledger]:
    async with await Ledger.open(where) as opened:
        yield opened


async def test_a_record_comes_back_as_it_was_committed(ledger: Ledger, where: str) -> None:
    new = make_record("mona")
    await ledger.add([new])
    media = Media(8.0, 1920, 1080, 24.0, True, "h264", "aac", ("no keyframe in the first second",))
    full = new.evolve(
        State.SUBMITTING,
        body='{"prompt": "Sie lächelt – 微笑む"}',
        correlation_id="abc.mona.1",
        submitted_at=1795358818.9538698,
        usd_spent=0.1 + 0.2,
        failure=Failure("generation_error", "the vendor's words", True),
        artifact=Artifact("videos/mona.mp4", 2**40, "a" * 64, media, "posters/mona.jpg"),
    )
    assert await ledger.commit(new, full) == full
    assert await ledger.get(new.key) == full
    async with await Ledger.open(where) as again:
        assert await again.load() == [full]


async def test_nested_parts_go_as_they_came(ledger: Ledger) -> None:
    first = replace(make_record("mona"), failure=Failure("refused", ""), artifact=Artifact("v.mp4", 0, ""))
    await ledger.add([first])
    assert await ledger.load() == [first]
    bare = await ledger.commit(first, first.evolve(failure=None, artifact=None))
    assert await ledger.load() == [bare]


async def test_records_are_loaded_by_position_then_key(ledger: Ledger) -> None:
    await ledger.add([make_record("c", 2), make_record("b", -1), make_record("d", 0), make_record("a", -1)])
    assert [record.id for record in await ledger.load()] == ["a", "b", "d", "c"]


async def test_only_the_first_of_two_same_steps_is_made(ledger: Ledger) -> None:
    new = make_record("mona")
    await ledger.add([new])
    step = new.evolve(State.SUBMITTING)
    outcomes = await asyncio.gather(
        ledger.commit(new, step), ledger.commit(new, step), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "Record"]
    assert [line.version for line in await read_history(ledger, new.key)] == [1]


async def test_a_conflict_is_its_callers_alone(ledger: Ledger) -> None:
    rows = [make_record(f"r{n}", n) for n in range(20)]
    await ledger.add(rows)
    moved = await ledger.commit(rows[7], rows[7].evolve(State.SUBMITTING))
    outcomes = await asyncio.gather(
        *(ledger.commit(row, row.evolve(State.SUBMITTING)) for row in rows), return_exceptions=True
    )
    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Conflict)] == [7]
    assert (await ledger.get(rows[7].key)) == moved
    assert await ledger.counts() == {State.SUBMITTING: 20}


async def test_a_step_needs_its_state_as_well_as_its_version(ledger: Ledger) -> None:
    new = make_record("mona")
    await ledger.add([new])
    believed = replace(new, state=State.IN_DOUBT)
    with pytest.raises(Conflict, match="mona@f00d"):
        await ledger.commit(believed, believed.evolve(State.GENERATING))
    assert await ledger.get(new.key) == new


async def test_a_generation_is_one_rows_whichever_process_names_it(ledger: Ledger, where: str) -> None:
    rows = [make_record(name, n).evolve(State.SUBMITTING) for n, name in enumerate("abc")]
    await ledger.add(rows)
    first, second, third = [row.evolve(State.GENERATING, generation_id="g") for row in rows]
    async with await Ledger.open(where) as other:
        await ledger.commit(rows[0], first)
        with pytest.raises(GenerationTaken, match="g is another create's"):
            await other.commit(rows[1], second)
        own = third.evolve(generation_id="own")
        outcomes = await other.commit_many([Transition(rows[2], third), Transition(third, own)])
        assert [type(outcome) for outcome in outcomes] == [GenerationTaken, Conflict]
        assert await other.load() == [first, rows[1], rows[2]]
    # The row's own may be named to it again, and is no other's when it was given up.
    gone = await ledger.commit(first, first.evolve(State.FAILED, generation_id=""))
    with pytest.raises(GenerationTaken):
        await ledger.commit(rows[1], second)
    pending = await ledger.commit(gone, gone.evolve(State.PENDING))
    sent = await ledger.commit(pending, pending.evolve(State.SUBMITTING))
    again = await ledger.commit(sent, sent.evolve(State.GENERATING, generation_id="g"))
    assert await ledger.get(rows[0].key) == again


async def test_a_create_is_not_answered_with_what_an_earlier_one_of_its_row_bought(ledger: Ledger) -> None:
    new = make_record("mona")
    await ledger.add([new])
    sent = await ledger.commit(new, new.evolve(State.SUBMITTING, submission_no=1, correlation_id="c1"))
    first = await ledger.commit(sent, sent.evolve(State.GENERATING, generation_id="g"))
    error = Failure("generation_error", "the provider failed", retryable=True)
    failed = await ledger.commit(first, first.evolve(State.FAILED, failure=error))
    pending = await ledger.commit(failed, failed.evolve(State.PENDING, failure=None, generation_id=""))
    again = await ledger.commit(
        pending, pending.evolve(State.SUBMITTING, submission_no=2, correlation_id="c2")
    )
    with pytest.raises(GenerationTaken, match="g is another create's"):
        await ledger.commit(again, again.evolve(State.GENERATING, generation_id="g"))
    # What the log, or the user, calls the row's is taken from them.
    doubt = await ledger.commit(again, again.evolve(State.IN_DOUBT))
    await ledger.commit(doubt, doubt.evolve(State.GENERATING, generation_id="g"))


async def test_an_absent_record_is_a_conflict(ledger: Ledger) -> None:
    with pytest.raises(Conflict):
        await ledger.commit(make_record("nobody"), make_record("nobody").evolve(State.SUBMITTING))


async def test_many_steps_are_each_judged_on_their_own(ledger: Ledger) -> None:
    a, b = make_record("a", 0), make_record("b", 1)
    await ledger.add([a, b])
    once = a.evolve(State.SUBMITTING)
    twice = once.evolve(State.GENERATING, generation_id="g")
    stale = Transition(replace(b, version=4), replace(b, version=4).evolve(State.SUBMITTING))
    first, second, third, fourth = await ledger.commit_many(
        [Transition(a, once), stale, Transition(once, twice), Transition(b, b.evolve(file_stem="other"))]
    )
    assert (first, third) == (once, twice)
    assert isinstance(second, Conflict)
    assert isinstance(fourth, type(b))
    assert await ledger.load() == [twice, b.evolve(file_stem="other")]


async def test_committing_no_steps_is_a_no_op(ledger: Ledger) -> None:
    assert await ledger.commit_many([]) == []
    await ledger.add([])
    await ledger.set_positions({})


async def test_illegal_steps_never_reach_the_database(ledger: Ledger) -> None:
    new, other = make_record("mona"), make_record("other", 1)
    await ledger.add([new, other])
    to_done = replace(new, state=State.DONE, version=1)
    with pytest.raises(IllegalTransition, match="pending may not become done"):
        await ledger.commit(new, to_done)
    with pytest.raises(IllegalTransition):
        await ledger.commit_many(
            [Transition(other, other.evolve(State.SUBMITTING)), Transition(new, to_done)]
        )
    with pytest.raises(ValueError, match="does not follow"):
        await ledger.commit(new, replace(new, version=2))
    with pytest.raises(ValueError, match="does not follow"):
        await ledger.commit(new, replace(other, version=1))
    assert await ledger.load() == [new, other]


async def test_history_holds_every_step(ledger: Ledger) -> None:
    record = make_record("mona")
    await ledger.add([record])
    for state in (State.SUBMITTING, State.IN_DOUBT, State.IN_DOUBT, State.GENERATING):
        record = await ledger.commit(record, record.evolve(state))
    lines = await read_history(ledger, record.key)
    assert [(line.version, line.before.value, line.after.value) for line in lines] == [
        (1, "pending", "submitting"),
        (2, "submitting", "in_doubt"),
        (3, "in_doubt", "in_doubt"),
        (4, "in_doubt", "generating"),
    ]
    assert [line.at for line in lines] == sorted(line.at for line in lines)


async def test_a_cancelled_commit_is_written_all_the_same(ledger: Ledger) -> None:
    new = make_record("mona")
    await ledger.add([new])
    commit = asyncio.create_task(ledger.commit(new, new.evolve(State.SUBMITTING)))
    await asyncio.sleep(0)
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    await ledger.meta_set("behind", "it")
    assert (await ledger.load())[0].state is State.SUBMITTING


async def test_close_writes_what_was_asked(where: str) -> None:
    rows = [make_record(f"r{n}", n) for n in range(50)]
    ledger = await Ledger.open(where)
    await ledger.add(rows)
    commits = [asyncio.create_task(ledger.commit(row, row.evolve(State.SUBMITTING))) for row in rows]
    await asyncio.sleep(0)
    await ledger.close()
    await ledger.close()
    assert [record.version for record in await asyncio.gather(*commits)] == [1] * 50
    with pytest.raises(RuntimeError, match="closed"):
        await ledger.commit(rows[0], rows[0].evolve(State.SUBMITTING))
    async with await Ledger.open(where, read_only=True) as again:
        assert await again.counts() == {State.SUBMITTING: 50}


async def test_places_are_no_steps(ledger: Ledger) -> None:
    rows = [make_record(f"r{n}", n) for n in range(3)]
    await ledger.add(rows)
    await ledger.set_positions({rows[0].key: 2, rows[2].key: 0, rows[1].key: -1}, {rows[0].key: 99})
    gone, first, last = await ledger.load()
    assert (gone.key, first.key, last.key) == (rows[1].key, rows[2].key, rows[0].key)
    assert (last.line, last.version, first.line) == (99, 0, rows[2].line)
    moved = await ledger.commit(rows[0], rows[0].evolve(State.SUBMITTING))
    assert (await ledger.get(moved.key) or moved).position == 2, "a step must not take the old place back"
    assert await ledger.counts() == {State.PENDING: 1, State.SUBMITTING: 1}
    assert await ledger.counts(removed=True) == {State.PENDING: 1}


async def test_adding_again_changes_nothing_and_other_content_is_refused(ledger: Ledger) -> None:
    a, b = make_record("a", 0), make_record("b", 1)
    await ledger.add([a])
    await ledger.add([a, b])
    with pytest.raises(Conflict, match="a@f00d"):
        await ledger.add([replace(a, prompt="other"), make_record("c", 2)])
    assert await ledger.load() == [a, b]


async def test_facts_are_kept(ledger: Ledger, where: str) -> None:
    assert await ledger.meta_get("seen") is None
    await ledger.meta_set("seen", "1")
    await ledger.meta_set("seen", '{"n": 2}')
    async with await Ledger.open(where) as again:
        assert await again.meta_get("seen") == '{"n": 2}'


async def test_batches_know_nothing_of_each_other(ledger: Ledger, where: str) -> None:
    new = make_record("mona")
    await ledger.add([new])
    async with await Ledger.open(where, batch="second") as second:
        assert await second.load() == []
        await second.add([new])
        await second.commit(new, new.evolve(State.SUBMITTING))
        assert second.identity != ledger.identity
    assert await ledger.load() == [new]
    assert await read_history(ledger, new.key) == []
    with pytest.raises(LedgerError, match="no batch named 'third'"):
        await Ledger.open(where, batch="third", read_only=True)


async def test_a_batch_without_rows_takes_over_an_identity(ledger: Ledger, where: str) -> None:
    for name in ("former0one", "another0id"):
        async with await Ledger.open(where, new_as=name) as again:
            assert again.identity == name
    await ledger.add([make_record("a")])
    async with await Ledger.open(where, new_as="too0late00") as again:
        assert again.identity == "another0id"


async def test_the_identity_stays(ledger: Ledger, where: str) -> None:
    assert re.fullmatch("[a-z0-9]{10}", ledger.identity)
    async with await Ledger.open(where) as again:
        assert again.identity == ledger.identity


async def test_text_that_no_database_takes_costs_no_other_row(ledger: Ledger) -> None:
    rows = [make_record(f"r{n}", n) for n in range(3)]
    await ledger.add(rows)
    started = [await ledger.commit(row, row.evolve(State.SUBMITTING)) for row in rows]
    words = ["half \ud83d a pair", "a NUL \0 inside", "fine"]
    steps = [
        row.evolve(State.FAILED, failure=Failure("refused", text))
        for row, text in zip(started, words, strict=True)
    ]
    await asyncio.gather(*(ledger.commit(row, step) for row, step in zip(started, steps, strict=True)))
    kept = [record.failure.message for record in await ledger.load() if record.failure]
    assert kept[0] == "half ? a pair"
    assert kept[1] in ("a NUL \0 inside", "a NUL \N{REPLACEMENT CHARACTER} inside")
    assert kept[2] == "fine"
    await ledger.add([replace(make_record("odd", 9), prompt="\udfff")])


async def test_reading_only_goes_on_beside_a_run_and_writes_nothing(ledger: Ledger, where: str) -> None:
    new = make_record("mona")
    await ledger.add([new])
    async with await Ledger.open(where, read_only=True) as status:
        assert await status.counts() == {State.PENDING: 1}
        moved = await ledger.commit(new, new.evolve(State.SUBMITTING))
        assert await status.counts() == {State.SUBMITTING: 1}
        assert await status.load() == [moved]
        with pytest.raises(LedgerError, match="reading only"):
            await status.commit(moved, moved.evolve(State.IN_DOUBT))
        with pytest.raises(LedgerError, match="reading only"):
            await status.meta_set("name", "value")


async def test_reading_only_makes_no_ledger(where: str, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger here"):
        await Ledger.open(where, read_only=True)
    assert file_names(tmp_path) == []
    async with await Ledger.open(where) as made:
        assert await made.load() == []
