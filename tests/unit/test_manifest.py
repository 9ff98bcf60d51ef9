"""What a manifest that holds becomes: bodies, ids, places, in every format."""

from __future__ import annotations

import csv
import json
import random
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.manifest import BUILT_IN_MODEL, FieldRule, Manifest, ManifestProblems, ModelRules, load
from pipeline.manifest.fields import FieldKind

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[..., Manifest]

CAT, DOG = "https://example.com/cat.jpg", "https://example.com/dog.jpg"


@pytest.fixture
def read(tmp_path: Path) -> Write:
    def read(text: str, suffix: str = ".yaml", **rules: ModelRules) -> Manifest:
        path = tmp_path / f"batch{suffix}"
        path.write_text(text, encoding="utf-8", newline="")
        return load(path, rules={rule.model: rule for rule in rules.values()})

    return read


def bodies(manifest: Manifest) -> list[dict[str, Any]]:
    return [dict(job.body) for job in manifest.jobs]


def test_defaults_are_merged_under_jobs_and_pairs(read: Write) -> None:
    manifest = read(f"""
version: 1
defaults: {{duration: 8, resolution: 1080p}}
run:
  concurrency: 20
  max_cost: 50.00
jobs:
  - id: take-two
    image_url: {CAT}
    prompt: "She laughs."
    duration: 4
  - [{DOG}, "The dog barks."]
""")
    assert bodies(manifest) == [
        {
            "model": BUILT_IN_MODEL,
            "duration": 4,
            "resolution": "1080p",
            "image_url": CAT,
            "prompt": "She laughs.",
        },
        {
            "model": BUILT_IN_MODEL,
            "duration": 8,
            "resolution": "1080p",
            "image_url": DOG,
            "prompt": "The dog barks.",
        },
    ]
    assert manifest.run == {"concurrency": 20, "max_cost": 50.0}
    assert [(job.line, job.column) for job in manifest.jobs] == [(8, 5), (12, 5)]
    assert [job.index for job in manifest.jobs] == [0, 1]
    assert manifest.jobs[0].id == "take-two"


def test_a_list_is_a_manifest_and_has_the_built_in_model(read: Write) -> None:
    assert bodies(read(f"- [{CAT}, hello]\n")) == [
        {"model": BUILT_IN_MODEL, "image_url": CAT, "prompt": "hello"}
    ]


def test_every_format_reads_the_same_jobs(read: Write) -> None:
    rows: list[dict[str, Any]] = [
        {"image_url": CAT, "prompt": 'two\nlines, and "quotes"', "duration": 6, "generate_audio": False},
        {"id": "b", "image_url": DOG, "prompt": "😀 häh"},
    ]
    quoted = (
        "image_url,prompt,duration,generate_audio,id\r\n"
        '{},"two\nlines, and ""quotes""",6,false,\r\n'
        "{},😀 häh,,,b\r\n"
    )
    texts = {
        ".yaml": json.dumps(rows, ensure_ascii=False),
        ".json": json.dumps({"jobs": rows}, indent="\t"),
        ".jsonl": "\n".join(json.dumps(row) for row in rows) + "\n\n",
        ".csv": "\ufeff" + quoted.format(CAT, DOG),
        ".tsv": quoted.replace(",", "\t").replace("lines\t and", "lines, and").format(CAT, DOG),
    }
    read_as = {suffix: read(text, suffix) for suffix, text in texts.items()}
    for suffix, manifest in read_as.items():
        assert bodies(manifest) == [
            {"model": BUILT_IN_MODEL, **{k: v for k, v in r.items() if k != "id"}} for r in rows
        ], suffix
        assert [job.key for job in manifest.jobs] == [job.key for job in read_as[".yaml"].jobs], suffix
    assert [job.line for job in read_as[".csv"].jobs] == [2, 4]
    assert [job.line for job in read_as[".jsonl"].jobs] == [1, 2]


def test_ids_survive_reordering_and_extending(read: Write) -> None:
    rows = [
        [CAT, "a"],
        [CAT, "b"],
        [DOG, "a"],
        [CAT, "a"],
        [CAT, "a"],
        {"id": "x", "image_url": CAT, "prompt": "a"},
    ]
    before = sorted(job.key for job in read(json.dumps(rows)).jobs)
    for seed in range(5):
        shuffled = rows[:]
        random.Random(seed).shuffle(shuffled)
        after = sorted(job.key for job in read(json.dumps([[DOG, "new"], *shuffled])).jobs)
        assert set(before) < set(after)
    assert sum(key.endswith("-2@" + key.partition("@")[2]) for key in before) == 1


def test_an_automatic_id_makes_way_for_a_given_one(read: Write) -> None:
    taken = read(json.dumps([[CAT, "a"]])).jobs[0].id
    jobs = read(json.dumps([[CAT, "a"], {"id": taken, "image_url": DOG, "prompt": "b"}])).jobs
    assert [job.id for job in jobs] == [f"{taken}-2", taken]


def test_writing_out_a_default_is_no_edit(read: Write) -> None:
    plain = read(json.dumps([{"id": "a", "image_url": CAT, "prompt": "x"}])).jobs[0]
    spelled = {
        "id": "a",
        "image_url": CAT,
        "prompt": "x",
        "duration": 8,
        "provider": "AUTO",
        "model": BUILT_IN_MODEL,
    }
    job = read(json.dumps([spelled])).jobs[0]
    assert job.key == plain.key
    assert job.body["provider"] == "AUTO"
    assert "duration" not in plain.body
    edited = read(json.dumps([{**spelled, "duration": 6}])).jobs[0]
    assert edited.key != plain.key


def test_other_models_take_params_and_need_not_have_an_image(read: Write) -> None:
    manifest = read("""
defaults: {model: other/t2v, params: {seed: 1, deep: {list: [1, 2.5, null]}}}
jobs:
  - {prompt: hello, params: {seed: 2}}
""")
    assert bodies(manifest) == [
        {"model": "other/t2v", "prompt": "hello", "seed": 2, "deep": {"list": [1, 2.5, None]}}
    ]
    assert "not checked" in str(manifest.warnings[0])


def test_the_identity_of_other_models_does_not_hang_on_their_rules(read: Write) -> None:
    text = "- {model: other/t2v, prompt: hello}\n"
    fields = {"prompt": FieldRule(FieldKind.TEXT), "seed": FieldRule(FieldKind.INTEGER, default=7)}
    assert read(text).jobs[0].key == read(text, known=ModelRules("other/t2v", fields)).jobs[0].key


def test_aliases_are_shared_across_jobs(read: Write) -> None:
    manifest = read(f"""
x-base: &base {{image_url: {CAT}, duration: 4}}
jobs:
  - &first {{<<: *base, prompt: one}}
  - {{<<: *base, prompt: two, duration: 6}}
  - *first
""")
    assert [(job.prompt, job.body["duration"], job.id[-2:] == "-2") for job in manifest.jobs] == [
        ("one", 4, False),
        ("two", 6, False),
        ("one", 4, True),
    ]
    assert [job.line for job in manifest.jobs] == [4, 5, 6]


def test_vars_are_filled_in_once_and_can_be_escaped(read: Write) -> None:
    manifest = read(f"vars: {{a: A, b: B}}\njobs:\n  - [{CAT}, '${{a}} and ${{b}}, not $${{b}} for $5']\n")
    assert manifest.jobs[0].prompt == "A and B, not ${b} for $5"


def test_a_variable_in_a_variable_is_refused_at_its_place(read: Write) -> None:
    with pytest.raises(ManifestProblems) as caught:
        read(f"vars: {{a: 'A ${{b}}', b: B}}\njobs:\n  - [{CAT}, '${{a}}']\n")
    assert [(problem.line, problem.column) for problem in caught.value.problems] == [(1, 11)]


def test_without_vars_a_prompt_is_sent_as_it_stands(read: Write) -> None:
    manifest = read(f"- [{CAT}, 'costs ${{x}}']\n")
    assert manifest.jobs[0].prompt == "costs ${x}"
    assert len(manifest.warnings) == 1


def test_a_matrix_is_every_image_with_every_prompt(read: Write) -> None:
    manifest = read(f"""
jobs:
  - [{CAT}, alone]
matrix:
  images: [{CAT}, {DOG}]
  prompts:
    - one
    - two
  duration: [4, 6]
  exclude:
    - {{image_url: {CAT}, prompt: two}}
    - {{images: {DOG}, duration: 6}}
    - prompt: three
""")
    assert [(j.manifest_image, j.body.get("duration"), j.prompt, j.line) for j in manifest.jobs] == [
        (CAT, None, "alone", 3),
        (CAT, 4, "one", 7),
        (CAT, 6, "one", 7),
        (DOG, 4, "one", 7),
        (DOG, 4, "two", 8),
    ]
    excluded = [(w.line, w.what) for w in manifest.warnings if "exclude" in w.what]
    assert excluded == [(13, "this exclude matches no row")]


def test_other_models_are_checked_by_their_rules(read: Write) -> None:
    fields = {
        "prompt": FieldRule(FieldKind.TEXT, min_size=1),
        "seed": FieldRule(FieldKind.INTEGER, minimum=0),
        "negative_prompt": FieldRule(FieldKind.TEXT),
    }
    rules = ModelRules("other/t2v", fields, required=("prompt",))
    with pytest.raises(ManifestProblems) as caught:
        read("- {model: other/t2v, params: {seed: -1, negativ_prompt: x}}\n", known=rules)
    words = str(caught.value)
    assert ":1:37: seed is -1: the least is 0" in words
    assert "did you mean `negative_prompt`?" in words
    assert "prompt is missing" in words
    assert caught.value.models == {"other/t2v"}
    with pytest.raises(ManifestProblems, match="the vendor has none of that name"):
        read("- {model: other/t2v, prompt: x}\n", known=ModelRules("other/t2v", {}, model_exists=False))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_byte_order_marks_are_taken(read: Write, end: str) -> None:
    text = f"\ufeffjobs:\n  - image_url: {CAT}\n    prompt: x\n"
    assert read(text.replace("\n", end)).jobs[0].line == 2


@pytest.mark.parametrize(
    "text", ["yes we can", "16:9 is wide", "no", "12:30", "1e3", "2024-01-01", "0x10", "true"]
)
def test_quoted_text_is_text(read: Write, text: str) -> None:
    assert read(f'- [{CAT}, "{text}"]\n').jobs[0].prompt == text


def test_a_prompt_cut_off_by_a_hash_is_a_warning(read: Write) -> None:
    manifest = read(f"""# comment
- image_url: {CAT}
  prompt: The #1 fan cheers  # a comment
- image_url: {CAT}
  prompt: "The #1 fan"   #comment
- image_url: {CAT}#part
  prompt: A fan # a comment
""")
    assert [(w.line, w.column) for w in manifest.warnings] == [(3, 11)]
    assert manifest.jobs[0].prompt == "The"


def test_unusual_line_separators_do_not_end_a_csv_row(read: Write) -> None:
    manifest = read(f"image_url,prompt\n{CAT},one\u2028two\x85three\n{DOG},four\r\n", ".csv")
    assert [(job.prompt, job.line) for job in manifest.jobs] == [("one\u2028two\x85three", 2), ("four", 3)]


def test_a_large_manifest_stays_small() -> None:
    """The bound is for 100,000 rows in 300 MB; a thirtieth of it, traced, with room to spare."""
    rows = "".join(f"- [https://example.com/{n}.jpg, Scene {n} of a long night]\n" for n in range(3_000))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batch.yaml"
        path.write_text(rows, encoding="utf-8")
        tracemalloc.start()
        try:
            assert len(load(path).jobs) == 3_000
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 6 * 1024 * 1024


def test_a_bad_default_is_said_once_however_many_rows_it_spoils(read: Write) -> None:
    with pytest.raises(ManifestProblems) as caught:
        read(f"defaults:\n  aspect_ratio: 16:9\njobs:\n  - [{CAT}, x]\n  - [{DOG}, y]\n")
    assert [(problem.line, problem.column) for problem in caught.value.problems] == [(2, 17)]


@pytest.mark.parametrize(
    ("suffix", "text", "why", "instead"),
    [
        (
            ".csv",
            "image_url,prompt\n",
            "no row follows a header",
            "image_url,prompt, and a line for each job",
        ),
        (".csv", "", "no row follows a header", "image_url,prompt, and a line for each job"),
        (".tsv", "image_url\tprompt\n", "no row follows a header", "and a line for each job"),
        (".jsonl", "\n\n", "no line holds one", 'a line for each: {"image_url": "...", "prompt": "..."}'),
        (".yaml", "jobs: []\n", "the list is empty", "write [image_url, prompt] items"),
    ],
)
def test_a_manifest_without_jobs_is_explained_in_its_own_format(
    read: Write, suffix: str, text: str, why: str, instead: str
) -> None:
    with pytest.raises(ManifestProblems) as caught:
        read(text, suffix)
    [problem] = caught.value.problems
    assert (problem.what, problem.why) == ("there are no jobs", why)
    assert instead in problem.instead


def test_a_cell_may_hold_a_large_picture_and_the_limit_of_others_stays(read: Write) -> None:
    limit = csv.field_size_limit(1000)
    try:
        picture = "data:image/png;base64," + "A" * 300_000
        manifest = read(f'image_url,prompt\n"{picture}",x\n{CAT},y\n', ".csv")
        assert [job.prompt for job in manifest.jobs] == ["x", "y"]
        assert len(next(iter(manifest.files.files.values())).written) == len(picture)
        assert csv.field_size_limit() == 1000
    finally:
        csv.field_size_limit(limit)


def test_manifests_read_at_once_leave_the_limit_as_it_was(tmp_path: Path) -> None:
    path, limit = tmp_path / "batch.csv", csv.field_size_limit()
    path.write_text("image_url,prompt\n" + f'{CAT},"{"x" * 200}"\n' * 300, encoding="utf-8")
    with ThreadPoolExecutor(4) as threads:
        assert [len(one.jobs) for one in threads.map(load, [path] * 12)] == [300] * 12
    assert csv.field_size_limit() == limit
