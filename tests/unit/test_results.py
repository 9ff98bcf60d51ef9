"""results.csv and the totals, read back as their readers read them."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model import Failure, State
from pipeline.results.csv_rows import (
    COLUMNS,
    csv_bytes,
    csv_number,
    csv_text,
    csv_value,
    iso,
    write_rows,
)
from pipeline.results.totals import summarize
from tests.unit.sample_rows import T0, done, failed, row

DESIGNED = [
    "id",
    "status",
    "generation_id",
    "video_path",
    "image_url",
    "prompt",
    "model",
    "bytes",
    "sha256",
    "duration_s",
    "width",
    "height",
    "has_audio",
    "submitted_at",
    "finished_at",
    "downloaded_at",
    "polls",
    "attempts",
    "credits_used",
    "usd_spent",
    "error_code",
    "error_message",
]


def read(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def test_the_columns_start_with_the_promised_ones() -> None:
    assert list(COLUMNS[: len(DESIGNED)]) == DESIGNED


def test_a_done_row() -> None:
    (got,) = read(csv_bytes([done(0, credits_used=120000.0)]))
    assert {name: got[name] for name in DESIGNED} == {
        "id": "job-0",
        "status": "done",
        "generation_id": "gen-0",
        "video_path": "videos/job-0.mp4",
        "image_url": "https://example.com/mona.jpg",
        "prompt": "Prompt 0.",
        "model": "google/veo-3.1-i2v-fast",
        "bytes": "2000000",
        "sha256": "ab" * 32,
        "duration_s": "8",
        "width": "1920",
        "height": "1080",
        "has_audio": "true",
        "submitted_at": "2026-09-21T14:13:20.000Z",
        "finished_at": "2026-09-21T14:14:50.000Z",
        "downloaded_at": "2026-09-21T14:14:52.000Z",
        "polls": "3",
        "attempts": "1",
        "credits_used": "120000",
        "usd_spent": "1.2",
        "error_code": "",
        "error_message": "",
    }


def test_the_columns_end_with_the_newest_ones() -> None:
    (got,) = read(csv_bytes([done(0)], sandbox=True))
    newest = ("request_id", "take", "pick", "image_sha256", "sandbox", "seed")
    assert list(COLUMNS[-6:]) == list(newest)
    assert [got[name] for name in newest] == ["", "1", "", "", "true", ""]
    (real,) = read(csv_bytes([done(0)]))
    assert real["sandbox"] == "false"
    [seeded] = read(csv_bytes([done(0, body='{"seed": 0, "prompt": "p"}')]))
    assert seeded["seed"] == "0"


def test_what_is_known_of_a_file_stays_while_it_is_fetched_again() -> None:
    (got,) = read(csv_bytes([done(0).evolve(State.READY)]))
    assert (got["status"], got["video_path"], len(got["sha256"])) == ("ready", "videos/job-0.mp4", 64)


def test_a_create_without_an_answer_is_in_doubt() -> None:
    assert read(csv_bytes([row(0, State.SUBMITTING)]))[0]["status"] == "in_doubt"


def test_rows_stand_in_the_manifests_order_and_paid_removed_ones_after_them() -> None:
    removed = [
        done(7, position=-1),
        row(8, position=-1),
        failed(9, position=-1),
        row(10, State.IN_DOUBT, position=-1),
    ]
    got = read(csv_bytes([done(2), *removed, done(0), row(1)]))
    assert [line["id"] for line in got] == ["job-0", "job-1", "job-2", "job-7", "job-10"]


@pytest.mark.parametrize(
    "cell",
    ["=1+1", "+1", "-cmd|' /C calc'!A0", "@SUM(A1)", "\tx", "\rx", " =1", "\n=1", "  @x", "＝1+1", "\xa0=1"],
)
def test_formulas_are_made_harmless(cell: str) -> None:
    (got,) = read(csv_bytes([row(0, prompt=cell, id=cell, failure=Failure(cell, cell))]))
    for name in ("prompt", "id", "error_code", "error_message"):
        assert got[name] == f"'{cell}"


@pytest.mark.parametrize("cell", ["a=1", "1-2", "", "'", "x@y", "Ωmega", 'say "hi", then\nleave\r\n'])
def test_other_text_is_left_alone(cell: str) -> None:
    assert read(csv_bytes([row(0, prompt=cell)]))[0]["prompt"] == cell


def test_what_utf8_or_a_reader_cannot_hold_is_replaced() -> None:
    assert read(csv_bytes([row(0, prompt="a\x00b\ud800c")]))[0]["prompt"] == "a�b�c"


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00")), max_size=5))
def test_any_text_comes_back(prompts: list[str]) -> None:
    got = read(csv_bytes([row(i, prompt=prompt) for i, prompt in enumerate(prompts)]))
    assert [line["prompt"] for line in got] == [csv_text(prompt) for prompt in prompts]
    assert [csv_value(line["prompt"]) for line in got] == prompts


@pytest.mark.parametrize(
    ("value", "cell"),
    [(None, ""), (0.0, "0"), (1.5, "1.5"), (-3.25, "-3.25"), (1e-5, "0.00001"), (1e12, "1000000000000")],
)
def test_numbers_have_no_exponent(value: float | None, cell: str) -> None:
    assert csv_number(value) == cell


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_empty(value: float) -> None:
    assert csv_number(value) == ""


def test_times_are_utc_to_the_millisecond() -> None:
    assert iso(T0 + 0.25) == "2026-09-21T14:13:20.250Z"
    assert iso(None) == ""


def test_write_rows_ends_lines_with_a_newline_only() -> None:
    file = io.StringIO(newline="")
    write_rows([row(0)], file)
    assert file.getvalue().count("\n") == 2
    assert "\r" not in file.getvalue()


def test_the_summary_adds_up() -> None:
    rows = [
        done(0),
        replace(done(1), usd_spent=None),
        replace(done(2), usd_spent=None, reserved_usd=None),
        failed(3),
        row(4, State.SUBMITTING, reserved_usd=1.2, submitted_at=T0 + 500),
        row(5, State.GENERATING, reserved_usd=1.2),
        row(6),
        row(7, position=-1),
    ]
    got = summarize(rows).to_json()
    assert got["counts"] == {"done": 3, "failed": 1, "in_doubt": 1, "ready": 0, "generating": 1, "pending": 1}
    assert got["total"] == 7
    assert (got["usd_spent"], got["usd_assumed"], got["usd_open"], got["unpriced"]) == (1.2, 1.2, 2.4, 1)
    assert (got["saved_bytes"], got["video_s"], got["polls"]) == (6_000_000, 24.0, 9)
    assert (got["began_at"], got["ended_at"]) == ("2026-09-21T14:13:20.000Z", "2026-09-21T14:14:54.000Z")


def test_an_empty_batch_has_a_summary() -> None:
    assert summarize([]).to_json()["total"] == 0
