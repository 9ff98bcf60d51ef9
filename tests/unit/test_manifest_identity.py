"""The same row written otherwise is the same row; another row is another."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.manifest import ManifestProblems, load
from pipeline.manifest.fields import VEO_RULES
from pipeline.manifest.identity import canonical_json, canonical_text, fingerprint
from pipeline.manifest.jobs import with_extra_takes
from pipeline.model import Job, Record, State
from pipeline.plan import make_plan, new_record
from tests.unit.samples import record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

IMAGE = "https://example.com/mona.jpg"
COMPOSED = "Caf\u00e9, she says.\nThen she laughs."

SAME = [
    ("decomposed accents", IMAGE, unicodedata.normalize("NFD", COMPOSED)),
    ("CRLF", IMAGE, COMPOSED.replace("\n", "\r\n")),
    ("CR", IMAGE, COMPOSED.replace("\n", "\r")),
    ("a trailing blank", IMAGE, COMPOSED + " "),
    ("a trailing line", IMAGE, COMPOSED + "\n"),
    ("blanks at a line's end", IMAGE, COMPOSED.replace("\n", "  \n")),
    ("a host in capitals", "HTTPS://Example.COM/mona.jpg", COMPOSED),
    ("the default port", "https://example.com:443/mona.jpg", COMPOSED),
]
OTHER = [
    ("another path case", "https://example.com/Mona.jpg", COMPOSED),
    ("another port", "https://example.com:444/mona.jpg", COMPOSED),
    ("another query", IMAGE + "?v=2", COMPOSED),
    ("another word", IMAGE, COMPOSED.replace("laughs", "smiles")),
    ("a blank line between", IMAGE, COMPOSED.replace("\n", "\n\n")),
    ("capitals in the prompt", IMAGE, COMPOSED.upper()),
]


def body(image_url: str, prompt: str) -> dict[str, Any]:
    return {"model": VEO_RULES.model, "image_url": image_url, "prompt": prompt}


def identity(image_url: str, prompt: str) -> str:
    return fingerprint(canonical_json(body(image_url, prompt)))


@pytest.mark.parametrize(("name", "image_url", "prompt"), SAME, ids=[name for name, *_ in SAME])
def test_what_cannot_matter_changes_nothing(name: str, image_url: str, prompt: str) -> None:
    assert identity(image_url, prompt) == identity(IMAGE, COMPOSED), name


@pytest.mark.parametrize(("name", "image_url", "prompt"), OTHER, ids=[name for name, *_ in OTHER])
def test_what_matters_makes_another_row(name: str, image_url: str, prompt: str) -> None:
    assert identity(image_url, prompt) != identity(IMAGE, COMPOSED), name


@given(st.text())
def test_canonical_text_is_stable(text: str) -> None:
    once = canonical_text(text)
    assert canonical_text(once) == once


def old_fingerprint(sent: dict[str, Any]) -> str:
    """As version 0.1.0 made it: of the text as it stands."""
    text = json.dumps(VEO_RULES.with_defaults(sent), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def old_record(image_url: str, prompt: str, given_id: str = "", number: str = "") -> Record:
    sent = body(image_url, prompt)
    made = old_fingerprint(sent)
    row_id = given_id or made + number
    return replace(
        record(State.DONE, row_id, 0),
        key=f"{row_id}@{made}",
        id=row_id,
        fingerprint=made,
        body=json.dumps(sent),
    )


def job_of(image_url: str, prompt: str, given_id: str = "", number: str = "") -> Job:
    made = identity(image_url, prompt)
    return Job(given_id or made + number, made, 0, VEO_RULES.model, body(image_url, prompt))


@pytest.mark.parametrize(("name", "image_url", "prompt"), SAME, ids=[name for name, *_ in SAME])
@pytest.mark.parametrize(("given_id", "number"), [("", ""), ("take", ""), ("", "-2")])
def test_a_ledger_of_before_knows_its_rows_again(
    name: str, image_url: str, prompt: str, given_id: str, number: str
) -> None:
    known = old_record(image_url, prompt, given_id, number)
    plan = make_plan([job_of(IMAGE, COMPOSED, given_id, number)], [known])
    assert plan.added == ()
    assert [made.key for made in plan.records] == [known.key], name
    assert plan.records[0].position == 0


@pytest.mark.parametrize(("name", "image_url", "prompt"), OTHER, ids=[name for name, *_ in OTHER])
def test_an_edited_row_is_a_new_one(name: str, image_url: str, prompt: str) -> None:
    plan = make_plan([job_of(image_url, prompt)], [old_record(IMAGE, COMPOSED)])
    assert len(plan.added) == 1, name


def done(number: int, word: str) -> Record:
    return old_record(IMAGE, f"{word} {number}")


@pytest.mark.parametrize(
    ("kept", "new", "vanished", "asks"),
    [
        (0, 5, 5, True),
        (2, 5, 5, True),
        (0, 5, 4, True),
        (0, 5, 3, False),
        (6, 5, 5, False),
        (0, 5, 0, False),
        (5, 0, 5, False),
        (0, 3, 3, True),
        (0, 2, 2, False),
        (0, 1, 1, False),
    ],
)
def test_a_manifest_that_was_rewritten_throughout_is_noticed(
    kept: int, new: int, vanished: int, asks: bool
) -> None:
    jobs = [job_of(IMAGE, f"kept {n}") for n in range(kept)] + [job_of(IMAGE, f"new {n}") for n in range(new)]
    jobs = [replace(job, index=index) for index, job in enumerate(jobs)]
    known = [done(n, "kept") for n in range(kept)] + [done(n, "old") for n in range(vanished)]
    assert make_plan(jobs, known).seems_rewritten is asks


def test_rows_that_vanished_long_ago_ask_nothing() -> None:
    jobs = [replace(job_of(IMAGE, f"new {n}"), index=n) for n in range(5)]
    known = [replace(done(n, "old"), position=-1) for n in range(5)]
    assert make_plan(jobs, known).seems_rewritten is False


def test_a_spreadsheet_that_writes_crlf_changes_no_row(tmp_path: Path) -> None:
    text = f'image_url,prompt\n{IMAGE},"She waits.\nShe laughs."\n'
    unix, windows = tmp_path / "unix.csv", tmp_path / "windows.csv"
    unix.write_bytes(text.encode())
    windows.write_bytes(text.replace("\n", "\r\n").encode())
    assert [job.key for job in load(unix).jobs] == [job.key for job in load(windows).jobs]


COMPOSED_ID, DECOMPOSED_ID = "caf\u00e9", "cafe\u0301"
SAME_IDS = (
    (COMPOSED_ID, DECOMPOSED_ID),
    (DECOMPOSED_ID, COMPOSED_ID),
    ("A", "A "),
    (" A", "A"),
    (f" {DECOMPOSED_ID}", f"{COMPOSED_ID} "),
)


def jobs_of(path: Path, *ids: str, takes: int = 1) -> Sequence[Job]:
    rows = "".join(f'"{row_id}",{IMAGE},{number},{takes}\n' for number, row_id in enumerate(ids))
    path.write_text(f"id,image_url,prompt,takes\n{rows}", encoding="utf-8")
    return load(path).jobs


@pytest.mark.parametrize(("saved", "again"), SAME_IDS)
@pytest.mark.parametrize("takes", [1, 2])
def test_an_id_that_a_tool_has_stored_otherwise_is_the_same_row(
    saved: str, again: str, takes: int, tmp_path: Path
) -> None:
    first = make_plan(jobs_of(tmp_path / "batch.csv", saved, "b", takes=takes), [])
    second = make_plan(jobs_of(tmp_path / "batch.csv", again, "b", takes=takes), first.records)
    assert second.added == ()
    assert [row.id for row in second.records] == [row.id for row in first.records]
    assert [row.id for row in first.records if row.take == 1] == [saved, "b"]


@pytest.mark.parametrize(("saved", "again"), SAME_IDS)
@pytest.mark.parametrize("take", [1, 2])
def test_a_ledger_whose_keys_were_made_of_the_ids_as_written_knows_its_rows(
    saved: str, again: str, take: int, tmp_path: Path
) -> None:
    job = jobs_of(tmp_path / "batch.csv", saved, takes=2)[take - 1]
    known = replace(new_record(job, "a"), key=f"{job.id}@{job.fingerprint}", state=State.GENERATING)
    for row_id in (saved, again):
        plan = make_plan(jobs_of(tmp_path / "batch.csv", row_id, takes=2), [known])
        assert [row.take for row in plan.added] == [3 - take]
        assert [row.key for row in plan.records if row.position == take - 1] == [known.key]
    extra = {f"{saved}@{job.fingerprint}": [3], f"{again}@{job.fingerprint}": [4]}
    assert [one.take for one in with_extra_takes([job_of_take_1(job)], extra)] == [1, 3, 4]


def job_of_take_1(job: Job) -> Job:
    return replace(job, id=job.row_id, take=1)


@pytest.mark.parametrize(
    "row_id", ["take-two", "A b.2", COMPOSED_ID, "http://EXAMPLE.com", "\u732b", "a@b", "7"]
)
def test_the_key_of_an_id_that_was_canonical_is_what_it_was(row_id: str, tmp_path: Path) -> None:
    first, second = jobs_of(tmp_path / "batch.csv", row_id, takes=2)
    assert first.key == f"{row_id}@{first.fingerprint}"
    assert second.key == f"{row_id}.2@{first.fingerprint}"


@pytest.mark.parametrize(("one", "other"), [*SAME_IDS, ("a ", "a.2 ")])
def test_ids_that_are_the_same_row_are_taken(one: str, other: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestProblems, match="is taken"):
        jobs_of(tmp_path / "batch.csv", one, other, takes=2)
