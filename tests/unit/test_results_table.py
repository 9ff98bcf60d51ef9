"""A results.csv read back: whatever stands in it comes back as it was, or the row that cannot is named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batch.own_files import bought_rows_in, count_bought_rows
from pipeline.batch.results_table import (
    artifact_of,
    choose_rows,
    has_content_of,
    identities_in,
    read_table,
    record_of,
)
from pipeline.errors import UsageError
from pipeline.manifest import load
from pipeline.model import State
from pipeline.plan import make_plan
from pipeline.results.csv_rows import csv_bytes
from pipeline.submit.create import correlation_id
from tests.unit.sample_rows import done, failed, row

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.batch.results_table import Row
    from pipeline.model import Record

ODD = ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e", "\r", "\n", "\r\n", "\t", '"', "'", ",")
BEGINNINGS = ("=", "'=", "''=", "+", "-", "@", "'@", "\t", "' =", "＝", "'", "")
texts = st.lists(st.sampled_from([*ODD, "=", "+", "-", "@", " ", "x"]) | st.text(max_size=3), max_size=6)
prompts = st.tuples(st.sampled_from(BEGINNINGS), texts).map(lambda parts: parts[0] + "".join(parts[1]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def read_back(folder: Path, *records: Record) -> list[Row]:
    (folder / "results.csv").write_bytes(csv_bytes(records))
    return read_table(folder / "results.csv")


@given(st.lists(prompts, min_size=1, max_size=4))
def test_every_prompt_comes_back_with_its_row(folder: Path, written: list[str]) -> None:
    records = [done(index, prompt=prompt) for index, prompt in enumerate(written)]
    rows = read_back(folder, *records)
    # What UTF-8 or a reader of CSV cannot hold is replaced in the table.
    storable = [prompt.replace("\0", "\ufffd") for prompt in written]
    assert [row["prompt"] for row in rows] == storable
    assert [row["generation_id"] for row in rows] == [record.generation_id for record in records]
    assert all(has_content_of(*pair) for pair in zip(rows, records, strict=True))
    assert count_bought_rows(csv_bytes(records)) == len(records)


@pytest.mark.parametrize("prompt", [f"a{odd}b" for odd in ODD])
def test_a_row_counts_once_whatever_ends_its_lines(folder: Path, prompt: str) -> None:
    assert count_bought_rows(csv_bytes([done(0, prompt=prompt)])) == 1


def test_a_long_cell_hides_no_row(folder: Path) -> None:
    records = [failed(0, message="x" * 200_000), done(1)]
    rows = read_back(folder, *records)
    assert [len(row["error_message"]) for row in rows] == [200_000, 0]
    assert bought_rows_in(folder / "results.csv") == 1


@pytest.mark.parametrize("prompt", ["'=x", "'+x", "'=\u2028x"])
def test_a_table_of_an_earlier_version_names_its_rows(folder: Path, prompt: str) -> None:
    """It had no guard before a text that begins as a guarded cell does."""
    data = csv_bytes([done(0, prompt=prompt)]).replace(b"''", b"'")
    (folder / "results.csv").write_bytes(data)
    [read] = read_table(folder / "results.csv")
    assert has_content_of(read, row(0, prompt=prompt))


def test_another_text_is_another_row(folder: Path) -> None:
    [read] = read_back(folder, done(0, prompt="She laughs."))
    assert has_content_of(read, row(0, prompt="She laughs. "))
    assert not has_content_of(read, row(0, prompt="She frowns."))
    assert not has_content_of(read, row(0, prompt="She laughs.", model="other"))


def test_a_done_row_becomes_what_it_was(folder: Path) -> None:
    before = done(0)
    [read] = read_back(folder, before)
    after = record_of(row(0), read, artifact_of(read))
    for name in ("state", "generation_id", "submitted_at", "finished_at", "downloaded_at", "usd_spent"):
        assert getattr(after, name) == getattr(before, name)
    assert after.artifact is not None
    assert after.artifact.path == "videos/job-0.mp4"
    unsaved = record_of(row(0), read, None)
    assert (unsaved.state, unsaved.completed_at) == (State.GENERATING, before.finished_at)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("bytes", "2,000,000"),
        ("width", "1920 px"),
        ("polls", "three"),
        ("usd_spent", "1,2"),
        ("usd_spent", "nan"),
        ("submitted_at", "yesterday"),
        ("downloaded_at", "13/1/2026"),
    ],
)
def test_a_cell_that_cannot_be_read_is_named(folder: Path, column: str, cell: str) -> None:
    [read] = read_back(folder, done(0))
    edited = {**read, column: cell}
    with pytest.raises(UsageError, match=rf"'job-0' has '{cell}' in the column {column}"):
        record_of(row(0), edited, artifact_of(edited))


def test_no_two_rows_take_over_one_generation(folder: Path) -> None:
    rows = read_back(folder, done(0), done(1, generation_id="gen-0"), done(2, prompt="edited"), row(3))
    manifest = {record.id: record for record in (row(0), row(1), row(2), row(3))}
    chosen, left_out = choose_rows(rows, manifest)
    assert sorted(chosen) == ["job-0@f0", "job-3@f3"]
    assert [read["id"] for read in left_out] == ["job-1", "job-2"]


def test_what_was_bought_wins_over_a_row_of_the_same_name(folder: Path) -> None:
    rows = read_back(folder, row(0), replace(done(0), position=1))
    chosen, left_out = choose_rows(rows, {"job-0": row(0)})
    assert (chosen["job-0@f0"]["status"], left_out) == ("done", [])


def test_the_ledgers_identity_is_in_the_correlation_ids(folder: Path) -> None:
    rows = read_back(folder, done(0, correlation_id="vb.abcdefghij.0123.4.1"), done(1), row(2))
    assert identities_in(rows) == {"abcdefghij"}


EDITS: list[tuple[str, dict[str, object], bool]] = [
    ("as it was", {}, True),
    ("the picture was renamed", {"image": "q.jpg"}, True),
    ("another picture under its name", {"picture": b"two"}, False),
    ("the id's accents stored otherwise", {"id": "cafe\u0301"}, True),
    ("the prompt's line ends", {"prompt": "A\r\nB"}, True),
    ("another prompt", {"prompt": "C"}, False),
    ("a field that the table does not show", {"duration": 4}, False),
]


def planned(folder: Path, *, picture: bytes = b"one", **fields: object) -> dict[str, Record]:
    row = {"id": "caf\u00e9", "image": "p.jpg", "prompt": "A\nB", **fields}
    (folder / str(row["image"])).write_bytes(picture)
    (folder / "m.json").write_text(json.dumps([row]), encoding="utf-8")
    return {record.id: record for record in make_plan(load(folder / "m.json").jobs, ()).records}


def bought(record: Record) -> Record:
    at = replace(done(0), **{name: getattr(record, name) for name in ("key", "id", "body", "fingerprint")})
    shown = {name: getattr(record, name) for name in ("prompt", "manifest_image", "model")}
    return replace(at, correlation_id=correlation_id("abcdefghij", record, 1, "0" * 16), **shown)


@pytest.mark.parametrize(("what", "fields", "is_same"), EDITS)
@pytest.mark.parametrize("missing", ["", "correlation_id"])
def test_a_row_is_taken_over_for_its_content(
    tmp_path: Path, what: str, fields: dict[str, object], *, is_same: bool, missing: str
) -> None:
    """A picture is compared by what it holds and an id by what it says, with or without the exact key."""
    [before] = planned(tmp_path).values()
    [read] = read_back(tmp_path, bought(before))
    now = planned(tmp_path, **fields)  # type: ignore[arg-type]
    if missing and "duration" in fields:
        is_same = True  # nothing in the table tells
    chosen, left_out = choose_rows([{**read, missing: ""}], now)
    assert (len(chosen), len(left_out)) == ((1, 0) if is_same else (0, 1)), what


def test_a_table_without_checksums_compares_the_pictures_paths(tmp_path: Path) -> None:
    [before] = planned(tmp_path).values()
    [read] = read_back(tmp_path, bought(before))
    early = {name: cell for name, cell in read.items() if name not in ("image_sha256", "correlation_id")}
    assert choose_rows([early], planned(tmp_path))[0]
    assert not choose_rows([early], planned(tmp_path, image="q.jpg"))[0]


@pytest.mark.parametrize(("in_table", "now"), [("A\r\nB", "A\r\nB"), ("A\r\nB", "A\nB"), ("A\nB", "A\r\nB")])
def test_a_row_that_was_sent_under_the_key_of_an_earlier_version_is_taken_over(
    tmp_path: Path, in_table: str, now: str
) -> None:
    """Its key was made of its texts as they stood, so that its digest is not that of the row's key now."""
    [record] = planned(tmp_path, prompt=in_table).values()
    sent = replace(bought(record), correlation_id=f"vb.abcdefghij.row.{'ab' * 8}.1")
    chosen, left_out = choose_rows(read_back(tmp_path, sent), planned(tmp_path, prompt=now))
    assert (list(chosen), left_out) == ([record.key], [])


def test_an_id_is_found_however_the_table_stores_it(tmp_path: Path) -> None:
    [before] = planned(tmp_path).values()
    [read] = read_back(tmp_path, bought(before))
    assert choose_rows([{**read, "id": "cafe\u0301 "}], planned(tmp_path))[0]
