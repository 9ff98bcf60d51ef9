"""Takes: several goes at a row, each a job of its own; what a raise, a cut and a retake come to."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from pipeline.batch.retakes import retakes_by_id, retakes_of_rejected
from pipeline.errors import UsageError
from pipeline.manifest import FieldRule, ManifestProblems, ModelRules, load
from pipeline.manifest.fields import FieldKind
from pipeline.manifest.jobs import with_extra_takes
from pipeline.model import PICKED, REJECTED, Artifact, Record, State
from pipeline.plan import make_plan

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.model import Job

IMAGE = "https://example.com/a.jpg"
ROWS = f"""
  - {{id: a, image_url: "{IMAGE}", prompt: She laughs.}}
  - [{IMAGE}, She winks.]
"""
SKETCH = ModelRules(
    "some/sketch",
    MappingProxyType(
        {
            "prompt": FieldRule(FieldKind.TEXT),
            "seed": FieldRule(FieldKind.INTEGER, minimum=1, maximum=10),
        }
    ),
)


def jobs_of(tmp_path: Path, text: str, takes: int | None = None) -> list[Job]:
    path = tmp_path / "m.yaml"
    path.write_text(text, encoding="utf-8")
    return list(load(path, rules={"some/sketch": SKETCH}, takes=takes).jobs)


def manifest(takes: str = "") -> str:
    return f"defaults: {{{takes}}}\njobs:{ROWS}"


def saved(record: Record, pick: str = "") -> Record:
    artifact = Artifact(f"videos/{record.file_stem}.mp4", 1, "00")
    return replace(record, state=State.DONE, submission_no=1, usd_spent=1.0, artifact=artifact, pick=pick)


def test_take_1_is_the_row_itself_and_the_others_follow_it(tmp_path: Path) -> None:
    once, thrice = jobs_of(tmp_path, manifest()), jobs_of(tmp_path, manifest("takes: 3"))
    assert [job.id for job in thrice[:3]] == ["a", "a.2", "a.3"]
    assert [job.id for job in thrice[3:]] == [once[1].id, f"{once[1].id}.2", f"{once[1].id}.3"]
    assert [thrice[0].key, thrice[3].key] == [job.key for job in once]
    assert [job.index for job in thrice] == [0, 1, 2, 3, 4, 5]
    assert [(job.take, job.row_id) for job in thrice[:3]] == [(1, "a"), (2, "a"), (3, "a")]
    assert {job.body["prompt"] for job in thrice[:3]} == {"She laughs."}
    assert all("takes" not in job.body for job in thrice)
    assert [job.id for job in jobs_of(tmp_path, manifest("takes: 3"), takes=1)] == [job.id for job in once]


@pytest.mark.parametrize("takes", ["0", "101", "1.5", '"2"', "[2]", "{a: 1}", "true", "null"])
def test_a_number_of_takes_that_is_none_is_a_problem(tmp_path: Path, takes: str) -> None:
    with pytest.raises(ManifestProblems, match="takes"):
        jobs_of(tmp_path, manifest(f"takes: {takes}"))


def test_an_id_that_another_rows_take_has_is_refused_at_its_line(tmp_path: Path) -> None:
    own = f'\n  - {{id: a.2, image_url: "{IMAGE}", prompt: She nods.}}'
    assert len(jobs_of(tmp_path, manifest() + own.lstrip("\n"))) == 3
    with pytest.raises(ManifestProblems, match=r"m.yaml:5.*a\.2.*take 2 of the row of line 3"):
        jobs_of(tmp_path, manifest("takes: 2") + own.lstrip("\n"))


def test_a_csv_has_a_column_for_takes(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"id,image_url,prompt,takes\na,{IMAGE},She laughs.,2\nb,{IMAGE},She nods.,\n")
    assert [job.id for job in load(path).jobs] == ["a", "a.2", "b"]


@pytest.mark.parametrize(
    ("fields", "seeds"),
    [
        ("takes: 1", [None]),
        ("takes: 3, params: {seed: 9}", [9, 10, 1]),
        ("takes: 4, params: {seed: [5, 9]}", [5, 9, 7, 8]),
    ],
)
def test_seeds_are_given_or_follow_from_the_row(tmp_path: Path, fields: str, seeds: list[int | None]) -> None:
    jobs = jobs_of(tmp_path, f"jobs: [{{id: a, model: some/sketch, prompt: p, {fields}}}]")
    assert [job.body.get("seed") for job in jobs] == seeds


def test_seeds_that_nobody_gave_differ_and_are_the_same_every_time(tmp_path: Path) -> None:
    text = "jobs: [{id: a, model: some/sketch, prompt: p, takes: 10}]"
    first, second = jobs_of(tmp_path, text), jobs_of(tmp_path, text)
    assert sorted(job.body["seed"] for job in first) == list(range(1, 11))
    assert first == second
    alone = jobs_of(tmp_path, text.replace("takes: 10", "takes: 1"))
    assert alone[0].key == first[0].key, "a seed that is chosen here is no part of the row's identity"


def test_another_seed_is_another_clip(tmp_path: Path) -> None:
    text = "jobs: [{id: a, model: some/sketch, prompt: p, takes: 2, params: {seed: [5, %s]}}]"
    one, other = jobs_of(tmp_path, text % 6), jobs_of(tmp_path, text % 7)
    assert one[0].key == other[0].key
    assert one[1].key != other[1].key
    with pytest.raises(ManifestProblems, match="the most is 10"):
        jobs_of(tmp_path, text % 11)


def test_raising_the_number_adds_only_what_is_missing_and_lowering_it_loses_nothing(tmp_path: Path) -> None:
    plan = make_plan(jobs_of(tmp_path, manifest()), [])
    bought = [saved(record) for record in plan.records]
    raised = make_plan(jobs_of(tmp_path, manifest("takes: 3")), bought)
    assert [record.take for record in raised.added] == [2, 3, 2, 3]
    assert [record.file_stem for record in raised.records[:3]] == ["a", "a.2", "a.3"]
    partly = [saved(record) if record.take < 3 else record for record in raised.records]
    lowered = make_plan(jobs_of(tmp_path, manifest()), partly)
    assert [record.id for record in lowered.records if record.position >= 0] == [b.id for b in bought]
    assert [record.take for record in lowered.removed] == [2, 2]
    assert not lowered.added


def test_a_row_whose_takes_are_all_rejected_gets_one_more(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, manifest("takes: 2"))
    a1, a2, b1, b2 = make_plan(jobs, []).records

    def retaken(*records: Record) -> list[tuple[str, int]]:
        return [(row.id, take) for row, take in retakes_of_rejected(jobs, records)]

    rejected = [saved(a1, REJECTED), saved(a2, REJECTED)]
    assert retaken(*rejected, saved(b1, REJECTED), saved(b2)) == [("a", 3)]
    assert retaken(saved(a1, REJECTED), saved(a2, PICKED), b1, b2) == []
    failed = replace(a2, state=State.FAILED, submission_no=1)
    assert retaken(saved(a1, REJECTED), failed, b1, b2) == [("a", 3)], "a take that failed is none"
    assert retaken(replace(a1, state=State.FAILED), failed, b1, b2) == []
    third = replace(saved(a1, REJECTED), id="a.3", key=f"a.3@{a1.fingerprint}", take=3, position=-1)
    assert retaken(*rejected, third, b1, b2) == [("a", 4)]
    old = replace(saved(a1, PICKED), key="a@before", fingerprint="before", position=-1)
    assert retaken(*rejected, old, b1, b2) == [("a", 3)], "what was picked before the edit is another row"


def test_a_take_of_a_row_is_asked_for_by_the_id_of_any_take(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, manifest("takes: 2"))
    assert [(row.id, take) for row, take in retakes_by_id(jobs, [], ["a.2", "a"])] == [("a", 3)]
    with pytest.raises(UsageError, match="no row of that id"):
        retakes_by_id(jobs, [], ["nobody"])


def test_a_retake_counts_the_takes_of_a_row_whose_id_was_stored_otherwise(tmp_path: Path) -> None:
    jobs = [replace(job, id=job.id.replace("a", "a\u0308")) for job in jobs_of(tmp_path, manifest())]
    third = replace(make_plan(jobs, []).records[0], id="\u00e4.3", take=3, submission_no=1, position=-1)
    assert [(row.id, take) for row, take in retakes_by_id(jobs, [third], ["\u00e4"])] == [("a\u0308", 4)]


def test_a_retake_passes_over_the_id_of_another_row(tmp_path: Path) -> None:
    own = f'\n  - {{id: a.2, image_url: "{IMAGE}", prompt: She nods.}}'
    jobs = jobs_of(tmp_path, manifest() + own.lstrip("\n"))
    assert [(row.id, take) for row, take in retakes_by_id(jobs, [], ["a"])] == [("a", 3)]


def test_extra_takes_stand_behind_their_row(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, manifest())
    more = with_extra_takes(jobs, {jobs[0].key: [2, 4], "gone@x": [2]})
    assert [(job.id, job.index) for job in more] == [("a", 0), ("a.2", 1), ("a.4", 2), (jobs[1].id, 3)]
    assert with_extra_takes(more, {jobs[0].key: [2, 4]}) == more
