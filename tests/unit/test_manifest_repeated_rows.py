"""Rows of one shape are checked by what was found of the first: every row as if it were checked alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.manifest import BUILT_IN_MODEL, ManifestProblems, load
from pipeline.manifest.repeated_rows import RepeatedRows

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = (
    "https://example.com/a.jpg",
    "http://images.example.com/b/c%20d.jpg",
    "https://EXAMPLE.com/a.jpg",
    "https://example.com:443/a.jpg?x=1",
    " https://example.com/a.jpg",
    "https://drive.google.com/file/d/1/view",
    "https://dropbox.com/s/a.jpg",
    "https://host.local/a.jpg",
    "https://10.0.0.1/a.jpg",
    "https://a..example.com/a.jpg",
    f"https://example.com/{'a' * 8200}",
    "missing.jpg",
    "",
    7,
    None,
)
PROMPTS = (
    "She smiles.",
    'She "smiles" \\ and waves',
    "  blanks around  ",
    "two\r\nlines ",
    "cafe\u0301",
    "https://EXAMPLE.com/prompt",
    "@image@ and @prompt@",
    "a ${name} in it",
    "\u200b",
    "bell\x07",
    "",
    8,
)
IDS = ("one", "second", "first", "", "\u200b", "a\x07", 5, None)
OTHERS: tuple[dict[str, Any], ...] = (
    {},
    {"duration": 4},
    {"duration": 4.0},
    {"duration": True},
    {"duration": 4, "resolution": "720p"},
    {"generate_audio": False, "takes": 2},
    {"model": "other/model", "params": {"seed": 3}},
    {"model": "other/model"},
    {"provider": "GOOGLE"},
    {"colour": "red"},
)


PLAIN = {"id": "first", "image_url": IMAGES[0], "prompt": PROMPTS[0]}
SECOND = {"id": "second", "image_url": "https://example.com/b.jpg", "prompt": 'She "laughs" \\ and waves'}
CHANGES: tuple[dict[str, Any], ...] = (
    *({"image_url": value} for value in IMAGES),
    *({"prompt": value} for value in PROMPTS),
    *({"id": value} for value in IDS),
    *OTHERS,
)


def outcome(path: Path) -> object:
    """Return all that a manifest is, or all that is wrong with it."""
    try:
        found = load(path)
    except ManifestProblems as problems:
        return problems.problems, problems.rows, problems.warnings, problems.models
    jobs = [(job, list(job.body.items())) for job in found.jobs]
    return jobs, found.warnings, found.models


@pytest.mark.parametrize("others", OTHERS, ids=json.dumps)
def test_rows_of_one_shape_are_what_each_is_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: dict[str, Any]
) -> None:
    path = tmp_path / "rows.jsonl"
    for change in CHANGES:
        rows = [{**PLAIN, **others}, {**SECOND, **others}, {**SECOND, "id": "third", **others, **change}]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        found = outcome(path)
        with monkeypatch.context() as patched:
            patched.setattr(RepeatedRows, "match", lambda _, __: None)
            assert found == outcome(path), change


def test_a_later_row_of_the_same_shape_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above would compare the builder with itself."""
    matched: list[bool] = []
    match = RepeatedRows.match
    monkeypatch.setattr(RepeatedRows, "match", lambda self, node: _noted(match(self, node), matched))
    path = tmp_path / "rows.csv"
    path.write_text(
        "id,image_url,prompt,resolution,duration\n"
        + "".join(f"r{n},https://example.com/{n}.jpg,Take {n},720p,{4 if n < 3 else 8}\n" for n in range(5))
    )
    assert [job.body["duration"] for job in load(path).jobs] == [4, 4, 4, 8, 8]
    assert matched == [False, True, True, False, True]
    assert {job.model for job in load(path).jobs} == {BUILT_IN_MODEL}


def _noted(found: Any, matched: list[bool]) -> Any:
    matched.append(found is not None)
    return found
