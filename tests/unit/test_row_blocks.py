"""Rows block by block: always as if all were made anew, and only what has changed is made."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from pipeline.model import State
from pipeline.results.csv_rows import CsvTable, csv_bytes
from pipeline.results.report import page_data, render
from pipeline.results.row_blocks import BLOCK_ROWS, RowBlocks
from tests.unit.sample_rows import T0, done, row
from tests.unit.test_report import payload

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def test_the_csv_that_is_kept_up_is_the_one_that_is_written_at_once() -> None:
    table, rows = CsvTable(), list(ROWS)
    for index in (3, 1, BLOCK_ROWS, len(rows) - 1):
        rows[index] = done(index)
        assert table.to_bytes(rows) == csv_bytes(rows)
    rows[3] = replace(rows[3], pick="picked")
    assert table.to_bytes(rows) == csv_bytes(rows)
    assert table.to_bytes(rows).count(b"\n") == len(rows) + 1


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
