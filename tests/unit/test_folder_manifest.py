"""A manifest of a folder of pictures: order, ids, prompts, and appending that leaves the rest alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from pipeline.batch.folder_manifest import FolderManifest, FolderOptions, find_pictures, write_manifest
from pipeline.errors import UsageError
from pipeline.manifest import load
from tests.unit.pictures import write_picture

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    for name in (
        "cat 10.jpg",
        "cat 9.JPG",
        "Äpfel/dog.png",
        "cat 10.png",
        ".hidden.jpg",
        "notes.txt",
        "cat.gif",
    ):
        path = tmp_path / "stills" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "stills"


def rows_of(path: Path) -> list[dict[str, str]]:
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    assert isinstance(rows, list)
    return rows


def write(stills: Path, *, append: bool = False, **options: object) -> FolderManifest:
    return write_manifest(stills, stills.parent / "stills.yaml", FolderOptions(**options), append=append)  # type: ignore[arg-type]


def test_pictures_stand_in_natural_order_with_ids_of_their_names(stills: Path) -> None:
    made = write(stills, prompt="{stem} yawns: ${x}", recursive=True)
    assert (made.added, made.without_prompt) == (5, 0)
    assert [(row["id"], row["image"], row["prompt"]) for row in rows_of(made.path)] == [
        ("cat 9", "stills/cat 9.JPG", "cat 9 yawns: ${x}"),
        ("cat 10", "stills/cat 10.jpg", "cat 10 yawns: ${x}"),
        ("cat 10.png", "stills/cat 10.png", "cat 10 yawns: ${x}"),
        ("cat", "stills/cat.gif", "cat yawns: ${x}"),
        ("Äpfel/dog", "stills/Äpfel/dog.png", "dog yawns: ${x}"),
    ]
    assert (made.path.parent / "veobatch.schema.json").exists()
    assert len(find_pictures(stills, recursive=False)) == 4


def test_what_was_written_is_a_manifest(tmp_path: Path) -> None:
    write_picture(tmp_path / 'stills/a "quoted" \\ name: #1.jpg')
    made = write(tmp_path / "stills", prompt='She says "hm"\u2028 and: # smiles\t.')
    (job,) = load(made.path).jobs
    assert job.id == 'a "quoted" \\ name: #1'
    assert job.prompt == 'She says "hm"\u2028 and: # smiles\t.'


def test_prompts_come_from_a_text_beside_the_picture_then_from_the_table_then_from_the_option(
    stills: Path,
) -> None:
    (stills / "cat 9.txt").write_text("\ufeffBeside it.\n", encoding="utf-8")
    (stills / "captions.csv").write_text(
        "Caption;File name\nFrom the table;CAT 10.jpg\nNot this;cat 9\n", encoding="utf-8"
    )
    made = write(stills)
    prompts = {row["image"].rpartition("/")[2]: row["prompt"] for row in rows_of(made.path)}
    assert prompts == {
        "cat 9.JPG": "Beside it.",
        "cat 10.jpg": "From the table",
        "cat 10.png": "",
        "cat.gif": "",
    }
    assert made.without_prompt == 2


def test_a_file_that_exists_is_never_written_over(stills: Path) -> None:
    write(stills, prompt="x")
    with pytest.raises(UsageError, match="--append"):
        write(stills, prompt="y")


def test_appending_adds_what_is_new_and_leaves_the_rest_byte_for_byte(stills: Path) -> None:
    path = stills.parent / "stills.yaml"
    old = b"jobs:\r\n    - [stills/cat 9.JPG, mine]   # a note\r\n"
    old += b"    - {id: cat, image: 'stills/cat 10.jpg', prompt: p}"
    path.write_bytes(old)
    made = write(stills, append=True, prompt="new")
    assert path.read_bytes().startswith(old)
    assert [row["id"] for row in rows_of(path)[2:]] == ["cat 10", "cat.gif"]
    assert made.added == 2
    after = path.read_bytes()
    assert write(stills, append=True, prompt="new").added == 0
    assert path.read_bytes() == after


def test_a_list_of_jobs_that_is_not_at_the_end_is_not_appended_to(stills: Path) -> None:
    path = stills.parent / "stills.yaml"
    path.write_text("jobs:\n  - [stills/cat.gif, x]\nrun:\n  concurrency: 3\n")
    with pytest.raises(UsageError, match="not at its end"):
        write(stills, append=True)
    assert path.read_text().endswith("concurrency: 3\n")


def test_a_folder_without_pictures_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="no pictures"):
        write(tmp_path)
