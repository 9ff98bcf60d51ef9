"""Rows block by block: always as if all were made anew, and only what has changed is made."""

from __future__ import annotations

import base64
import gzip
import io
import json
from typing import TYPE_CHECKING
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from pipeline.model import State
from pipeline.results import csv_rows
from pipeline.results.csv_rows import CsvTable, csv_bytes, write_rows
from pipeline.results.report import page_data, render
from pipeline.results.row_blocks import BLOCK_ROWS, RowBlocks
from tests.unit.sample_rows import T0, done, failed, row
from tests.unit.test_report import payload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest

    from pipeline.model import Record

ROWS = [row(index) for index in range(2 * BLOCK_ROWS + 7)]


class Maker:
    """Joins the rows of a block, and counts the blocks."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, rows: Sequence[Record]) -> str:
        self.made += 1
        return " ".join(f"{record.id}:{record.state}" for record in rows)


@given(
    st.lists(st.tuples(st.sampled_from(["done", "remove", "add"]), st.integers(0, len(ROWS) - 1)), max_size=6)
)
def test_blocks_are_those_of_the_rows_as_they_are_now(changes: list[tuple[str, int]]) -> None:
    kept, rows = RowBlocks(Maker()), list(ROWS)
    for what, at in changes:
        if what == "done":
            rows[at % len(rows)] = done(at)
        elif what == "remove":
            del rows[at % len(rows)]
        else:
            rows.insert(at, row(len(rows)))
        assert kept.of(rows) == RowBlocks(Maker()).of(rows)


def test_only_the_block_of_a_row_that_has_changed_is_made_again() -> None:
    maker = Maker()
    kept, rows = RowBlocks(maker), list(ROWS)
    kept.of(rows)
    rows[BLOCK_ROWS + 1] = rows[BLOCK_ROWS + 1].evolve(State.SUBMITTING)
    kept.of(rows)
    kept.of(rows)
    assert maker.made == 3 + 1


def test_blocks_that_will_not_change_are_made_beforehand() -> None:
    maker = Maker()
    kept = RowBlocks(maker)
    rows = [done(index) if index < BLOCK_ROWS else record for index, record in enumerate(ROWS)]
    assert len(list(kept.each_ended(rows))) == maker.made == 1
    assert list(kept.each_ended(rows)) == []
    kept.of(rows)
    assert maker.made == 3


def in_flight(index: int) -> Record:
    return row(index, State.GENERATING, generation_id=f"gen-{index}", prompt='Two lines,\n"quoted"\r é ＝')


def refused(index: int) -> Record:
    return failed(index, "no\nsuch, image")


CHANGES: dict[str, Callable[[int], Record]] = {
    "in flight": in_flight,
    "done": done,
    "refused": refused,
    "pending": row,
    "picked": lambda index: done(index, pick="picked"),
    "removed, paid": lambda index: in_flight(index).evolve(position=-1),
}


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from([*CHANGES, "drop"]), st.integers(0, 16)), max_size=8),
        max_size=5,
    ),
    st.sampled_from(["pending", "in flight", "done"]),
    st.booleans(),
)
def test_the_csv_that_is_kept_up_is_the_one_that_is_written_at_once(
    rounds: list[list[tuple[str, int]]], start: str, sandbox: bool
) -> None:
    table, rows = CsvTable(sandbox=sandbox), [CHANGES[start](index) for index in range(17)]
    for changes in [[], *rounds]:
        for change, index in changes:
            if change == "drop":
                del rows[index % len(rows)]
            else:
                rows[index % len(rows)] = CHANGES[change](index)
        text = io.StringIO(newline="")
        write_rows(rows, text, sandbox=sandbox)
        with patch("pipeline.results.row_blocks.BLOCK_ROWS", 5):
            assert table.to_bytes(rows) == text.getvalue().encode()
        assert csv_bytes(rows, sandbox=sandbox) == text.getvalue().encode()


def test_only_the_rows_that_have_changed_are_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    table, rows = CsvTable(), [in_flight(index) for index in range(2 * BLOCK_ROWS)]
    table.to_bytes(rows)
    written: list[str] = []

    def write(value: str) -> str:
        written.append(value)
        return value

    monkeypatch.setattr(csv_rows, "csv_text", write)
    for index in (3, BLOCK_ROWS, BLOCK_ROWS + 1):
        rows[index] = refused(index)
    assert table.to_bytes(rows).count(b"no\nsuch") == 3
    assert written.count("google/veo-3.1-i2v-fast") == 3


def test_a_large_page_holds_every_row_in_blocks() -> None:
    rows = [done(index, prompt="</script>&\u2028") for index in range(page_data.MAX_PLAIN_ROWS + 1)]
    kept = RowBlocks(page_data.pack_rows)
    list(kept.each_ended(rows))
    pages = [render(rows, title="t", manifest="m", generated_at=T0, packed=blocks) for blocks in (kept, None)]
    assert pages[0] == pages[1]
    found = payload(pages[0])
    unpacked = [
        one for block in found["packed"] for one in json.loads(gzip.decompress(base64.b64decode(block)))
    ]
    assert unpacked == json.loads(json.dumps(page_data.page_rows(rows)))
    assert found["fields"] == list(page_data.FIELDS)
