"""Records as rows, and the statements that write them."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from pipeline.ledger import rows
from pipeline.ledger.compiled_statements import SCHEMA_VERSION, SQLITE_FILE, sqlite_statements
from pipeline.ledger.schema import migrations, records
from pipeline.ledger.statements import SQLITE, compile_statements, sqlite_json
from pipeline.model import Artifact, ExtraFile, Failure, Media, Record, State

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
whole = st.integers(0, 2**31 - 1)
number = st.floats(allow_nan=False)

failures = st.builds(Failure, text, text, st.booleans())
media = st.builds(
    Media, number, whole, whole, number, st.booleans(), text, text, st.lists(text, max_size=3).map(tuple)
)
big = st.integers(0, 2**63 - 1)
files = st.lists(st.builds(ExtraFile, text, big, text), max_size=2).map(tuple)
artifacts = st.builds(Artifact, text, big, text, st.none() | media, text, st.none() | big, text, files)
any_record = st.builds(
    Record,
    key=text,
    id=text,
    fingerprint=text,
    position=st.integers(-1, 2**31 - 1),
    model=text,
    body=text,
    manifest_image=text,
    prompt=text,
    state=st.sampled_from(State),
    version=whole,
    submitted_at=st.none() | number,
    usd_spent=st.none() | number,
    key_id=text,
    vendor_sent_at=st.none() | number,
    earlier_usd=number,
    failure=st.none() | failures,
    artifact=st.none() | artifacts,
)


@given(any_record)
def test_a_record_survives_its_row(record: Record) -> None:
    row = rows.job_values(record) + rows.state_values(record)
    assert len(row) == len(rows.JOB_COLUMNS + rows.STATE_COLUMNS)
    assert list(rows.to_records([row])) == [record]


@given(st.lists(any_record, min_size=2, max_size=4))
def test_a_row_shares_with_others_only_what_it_has_itself(several: list[Record]) -> None:
    assert list(rows.to_records([_row(record) for record in [*several, *several]])) == [*several, *several]


@given(any_record)
def test_a_row_holds_nothing_but_what_drivers_take_straight(record: Record) -> None:
    row = rows.job_values(record) + rows.state_values(record)
    assert {type(value) for value in row} <= {str, int, float, bool, type(None)}


def test_texts_and_prices_that_rows_share_are_kept_once() -> None:
    made = [Record(f"k{n}", f"k{n}", "f", n, "m" * n, "b", "https://e/i", "prompt") for n in (3, 3)]
    made = [replace(record, reserved_usd=float("0.6"), usd_spent=float("0.5")) for record in made]
    a, b = rows.to_records(
        [tuple(str(v)[:] if isinstance(v, str) else v for v in _row(record)) for record in made]
    )
    assert a.model is b.model
    assert a.prompt is b.prompt
    assert a.reserved_usd is b.reserved_usd
    assert a.usd_spent is b.usd_spent


def _row(record: Record) -> rows.Row:
    return rows.job_values(record) + rows.state_values(record)


@pytest.mark.parametrize(
    ("kept", "given_text"), [("fine", "fine"), ("a ? b", "a \ud800 b"), ("a \ufffd b", "a \0 b")]
)
def test_text_is_made_storable(kept: str, given_text: str) -> None:
    assert rows.sanitized((1, None, given_text)) == (1, None, kept)


@pytest.mark.parametrize("url", ["sqlite://", "postgresql+psycopg://"])
def test_statements_compile_with_their_parameters_in_order(url: str) -> None:
    paramstyle = "qmark" if url == "sqlite://" else "format"
    sql = compile_statements(create_engine(url, paramstyle=paramstyle).dialect)
    sign = "?" if paramstyle == "qmark" else "%s"
    assert sql.record_update.count(sign) == len(rows.STATE_COLUMNS) + 4
    assert sql.record_add.count(sign) == len(rows.JOB_COLUMNS + rows.STATE_COLUMNS) + 1


def test_the_statements_for_sqlite_are_those_that_are_compiled() -> None:
    assert SQLITE_FILE.read_text(encoding="utf-8") == sqlite_json(), "run: python -m docs.generate"
    for version in range(1, SCHEMA_VERSION + 1):
        assert sqlite_statements(version) == compile_statements(SQLITE, version)


def test_the_tables_of_earlier_versions_are_never_changed_again() -> None:
    """A new column or index needs a new version, with statements that add it to the ledgers people have."""
    assert int(SCHEMA_VERSION) == 4
    file, database = create_engine("sqlite://").dialect, create_engine("postgresql+psycopg://").dialect
    for dialect in (file, database):
        assert [version for version, _ in migrations(dialect, 0)] == [1, 2, 3, 4]
        assert migrations(dialect, 4) == []
        made = next(text for text in migrations(dialect, 0)[0][1] if "TABLE veobatch_records" in text)
        assert column_names(made) == COLUMNS_OF_VERSION_1.split()
        [(_, (new_table, *new_columns)), (_, (generations, *newest, filled))] = migrations(dialect, 2)
        assert column_names(new_table) == COLUMNS_OF_SUBMISSIONS.split()
        assert [text.split()[5] for text in new_columns] == COLUMNS_OF_VERSION_3.split()
        assert [text.split()[5] for text in newest] == COLUMNS_OF_VERSION_4
        assert column_names(generations) == ["batch", "generation_id", "key"]
        assert filled.startswith("INSERT INTO veobatch_generations")
    assert migrations(file, 1)[0] == (2, [])
    assert migrations(database, 1)[0] == (2, INDICES_OF_VERSION_2)
    expected = {*COLUMNS_OF_VERSION_1.split(), *COLUMNS_OF_VERSION_3.split(), *COLUMNS_OF_VERSION_4}
    assert {column.name for column in records.columns} == expected


def column_names(table: str) -> list[str]:
    return re.findall(r"^\t\"?([a-z_0-9]+)\"? [A-Z]", table, re.MULTILINE)


INDICES_OF_VERSION_2 = [
    (
        "CREATE INDEX veobatch_records_free ON veobatch_records "
        "(batch, CAST(state = 'pending' AS INTEGER), position) "
        "WHERE worker IS NULL AND (state = 'pending' AND position >= 0 OR "
        "state IN ('submitting', 'in_doubt', 'generating', 'ready'))"
    ),
    "CREATE INDEX veobatch_records_lent ON veobatch_records (batch, worker) WHERE worker IS NOT NULL",
]

COLUMNS_OF_VERSION_4 = ["take", "pick", "pick_note"]
COLUMNS_OF_VERSION_1 = (
    "batch key id fingerprint position model body image_url prompt file_stem line state version "
    "intent attempts faults correlation_id generation_id video_url submitted_at doubted_at "
    "accepted_at not_yet_at finished_at downloaded_at polls reserved_usd usd_spent credits_used "
    "failure_code failure_message failure_retryable artifact_path artifact_bytes artifact_sha256 "
    "artifact_poster media_duration_s media_width media_height media_fps media_has_audio "
    "media_video_codec media_audio_codec media_warnings lease lease_until worker"
)

COLUMNS_OF_VERSION_3 = (
    "key_id api_url vendor_sent_at absent_since completed_at request_id video_urls earlier_usd "
    "artifact_mtime_ns artifact_etag artifact_extra"
)

COLUMNS_OF_SUBMISSIONS = (
    "batch id job_key submission_no key_id api_url model submitted_at vendor_sent_at reserved_usd state "
    "usd credits generation_id settled_at reason"
)


def test_the_names_alone_import_no_database() -> None:
    words = "import sys, pipeline.ledger; print('sqlalchemy' in sys.modules, 'psycopg' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", words], text=True) == "False False\n"
