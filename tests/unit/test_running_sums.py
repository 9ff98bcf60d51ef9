"""Sums that follow changes: always those of all rows, and none of them is counted again."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.model import Failure, State
from pipeline.results import overview
from pipeline.results.failures import failure_groups
from pipeline.results.live import running_sums
from pipeline.results.live.running_sums import RunningSums
from pipeline.results.report import page_records
from pipeline.results.totals import Summary, summarize
from tests.unit.sample_rows import T0, done, failed, row

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from pipeline.model import Record

CHANGES: dict[str, Callable[[int], Record]] = {
    "pending": row,
    "submitting": lambda index: row(index, State.SUBMITTING, submitted_at=T0 + index, reserved_usd=0.1),
    "in doubt": lambda index: row(index, State.IN_DOUBT, submitted_at=T0 - index, reserved_usd=0.7),
    "generating": lambda index: row(index, State.GENERATING, submitted_at=T0 + 2 * index, polls=index),
    "ready": lambda index: replace(done(index), state=State.READY, usd_spent=None),
    "done": done,
    "done slowly, unpriced": lambda index: done(index, 300.1, usd_spent=None, reserved_usd=None),
    "a second take": lambda index: done(index, id="job-0.2", take=2, usd_spent=0.1),
    "refused": failed,
    "failed": lambda index: row(index, State.FAILED, failure=Failure("generation_error", "it was odd")),
    "left the manifest": lambda index: row(index, position=-1),
    "left the manifest, paid": lambda index: replace(done(index), position=-1),
}


def values(totals: Summary) -> dict[str, Any]:
    found = {field.name: getattr(totals, field.name) for field in fields(totals)}
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in found.items()}


def check(sums: RunningSums, records: dict[str, Record]) -> None:
    rows = page_records(list(records.values()), live=True)
    totals = sums.summary(sandbox=True)
    assert values(totals) == values(summarize(rows, sandbox=True))
    assert sums.figures(totals) == overview.figures(totals, rows)
    assert failure_groups(sums.troubled()) == failure_groups(rows)


@given(
    st.lists(st.sampled_from(list(CHANGES)), max_size=7),
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from(list(CHANGES))), max_size=12),
)
def test_running_sums_are_those_of_all_rows(begin: list[str], changes: list[tuple[int, str]]) -> None:
    records = {
        f"row-{index}": replace(CHANGES[what](index), key=f"row-{index}") for index, what in enumerate(begin)
    }
    sums = RunningSums(records)
    check(sums, records)
    for index, what in changes:
        if (key := f"row-{index}") in records:
            before = records[key]
            records[key] = replace(CHANGES[what](index), key=key, id=before.id, take=before.take)
            sums.replace(before, records[key])
            check(sums, records)


def test_a_row_that_comes_later_is_counted_too() -> None:
    records = {"a": replace(done(0), key="a")}
    sums = RunningSums(records)
    records["b"] = replace(done(1), key="b")
    sums.replace(None, records["b"])
    check(sums, records)


def test_what_adding_leaves_in_a_float_is_not_money() -> None:
    records = {"a": row(0), "b": done(1, usd_spent=0.3)}
    sums = RunningSums(records)
    for _ in range(1_000):
        for after in (done(0, usd_spent=0.1), row(0)):
            before, records["a"] = records["a"], after
            sums.replace(before, after)
    before, records["b"] = records["b"], row(1)
    sums.replace(before, records["b"])
    assert sums.summary().usd_spent == 0.0


def test_a_row_that_ends_makes_nobody_look_at_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    records = {record.key: record for record in map(CHANGES["generating"], range(50))}
    sums = RunningSums(records)
    sums.figures(sums.summary())
    counted: list[int] = []

    def counting(rows: list[Record]) -> Any:
        counted.append(len(rows))
        return summarize(rows)

    monkeypatch.setattr(running_sums, "summarize", counting)
    for key, before in list(records.items()):
        records[key] = done(before.position, submitted_at=before.submitted_at)
        sums.replace(before, records[key])
        assert sums.figures(sums.summary())[0].value == str(before.position + 1)
    assert set(counted) == {1}
