"""`--model`: which rows it changes, and that they are checked and named as that model's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.manifest import BUILT_IN_MODEL, ManifestProblems, load

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = "https://example.com/a.jpg"


def models_of(folder: Path, document: Any, model: str | None) -> list[str]:
    path = folder / "m.json"
    path.write_text(json.dumps(document))
    return [job.model for job in load(path, model=model).jobs]


def row(**fields: Any) -> dict[str, Any]:
    return {"image_url": IMAGE, "prompt": "p", **fields}


@pytest.mark.parametrize(
    ("document", "models"),
    [
        ([row()], ["new"]),
        ([[IMAGE, "the bare pair"]], ["new"]),
        ([row(model=BUILT_IN_MODEL)], ["new"]),
        ([row(model="other")], ["other"]),
        ({"defaults": {"model": "mine"}, "jobs": [row(), row(model="mine")]}, ["new", "new"]),
        (
            {"defaults": {"model": "mine"}, "jobs": [row(model=BUILT_IN_MODEL), row(model="other")]},
            [BUILT_IN_MODEL, "other"],
        ),
    ],
)
def test_the_default_model_is_replaced_and_no_other(tmp_path: Path, document: Any, models: list[str]) -> None:
    assert models_of(tmp_path, document, "new") == models
    assert "new" not in models_of(tmp_path, document, None)


def test_a_row_of_another_model_is_another_job(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps([row()]))
    before, after = load(path).jobs[0], load(path, model="new").jobs[0]
    assert before.key != after.key
    assert load(path, model=BUILT_IN_MODEL).jobs[0].key == before.key


def test_the_rules_are_those_of_the_model_that_is_used(tmp_path: Path) -> None:
    document = {"defaults": {"model": "mine"}, "jobs": [row(duration=5)]}
    assert models_of(tmp_path, document, None) == ["mine"]
    with pytest.raises(ManifestProblems, match="duration"):
        models_of(tmp_path, document, BUILT_IN_MODEL)


@pytest.mark.parametrize("model", ["", " "])
def test_a_model_without_a_name_is_a_problem(tmp_path: Path, model: str) -> None:
    with pytest.raises(ManifestProblems, match="model"):
        models_of(tmp_path, [row()], model)
