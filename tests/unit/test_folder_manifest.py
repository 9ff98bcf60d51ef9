"""A manifest of a folder of pictures: order, ids, prompts, and appending that leaves the rest alone."""

from __future__ import annotations

import unicodedata
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
        path.write_bytes(name.encode())
    return tmp_path / "stills"


def rows_of(path: Path) -> list[dict[str, str]]:
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    assert isinstance(rows, list)
    return rows


def write(stills: Path, *, append: bool = False, **options: object) -> FolderManifest:
    return write_manifest(stills, stills.parent / "stills.yaml", FolderOptions(**options), append=append)  # type: ignore[arg-type]


def own_manifest(folder: Path, path: Path) -> FolderManifest:
    return write_manifest(folder, path, FolderOptions("x"), append=path.exists(), is_shared=False)


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


def test_a_text_lies_beside_a_picture_however_its_accents_are_stored(tmp_path: Path) -> None:
    write_picture(tmp_path / "stills" / unicodedata.normalize("NFD", "café.jpg"))
    text = tmp_path / "stills" / unicodedata.normalize("NFC", "café.txt")
    text.write_text("Steam rises.", encoding="utf-8")
    assert [row["prompt"] for row in rows_of(write(tmp_path / "stills", prompt="x").path)] == ["Steam rises."]


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


def test_a_file_system_that_composes_accents_otherwise_brings_no_new_picture(tmp_path: Path) -> None:
    """A folder that was packed on a Mac may have all its names so, or those within it alone."""
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    stills, path = tmp_path / composed, tmp_path / "stills.yaml"
    write_picture(stills / f"{composed}.jpg")
    assert own_manifest(stills, path).added == 1
    (stills / f"{composed}.jpg").rename(stills / f"{decomposed}.jpg")
    for name in (composed, decomposed):
        again = own_manifest(stills.rename(tmp_path / name), path)
        assert (again.added, again.repeated) == (0, [])
        assert len(load(path).jobs) == 1
        stills = tmp_path / name


def test_two_names_that_only_compose_accents_otherwise_are_two_pictures(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD")]
    stills = tmp_path / "stills"
    write_picture(stills / names[0], size=(1280, 720))
    write(stills, prompt="x")
    write_picture(stills / names[1], size=(1281, 720))
    if len(list(stills.iterdir())) == 2:  # not where a file system takes both for one name
        made = write(stills, prompt="x", append=True)
        assert made.added == 1
        assert len({job.key for job in load(made.path).jobs}) == 2
        assert write(stills, prompt="x", append=True).added == 0


def test_a_copy_of_a_rows_picture_gets_no_row_and_is_named(stills: Path) -> None:
    made = write(stills, prompt="x")
    before = made.path.read_bytes()
    copy = stills / "copy of 9.jpg"
    copy.write_bytes((stills / "cat 9.JPG").read_bytes())
    again = write(stills, prompt="x", append=True)
    assert [(one.path, one.known_as) for one in again.repeated] == [(copy, stills / "cat 9.JPG")]
    assert (again.added, made.path.read_bytes()) == (0, before)


def test_a_link_to_a_rows_picture_is_that_picture(stills: Path) -> None:
    write(stills, prompt="x")
    (stills / "link.jpg").symlink_to("cat 9.JPG")
    (stills / "hard link.jpg").hardlink_to(stills / "cat 9.JPG")
    again = write(stills, prompt="x", append=True)
    assert (again.added, again.repeated) == (0, [])


def test_a_manifest_is_found_to_have_its_pictures_through_a_link(stills: Path, tmp_path: Path) -> None:
    """`..` in a row's path counts from where the link leads."""
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "output").symlink_to("elsewhere/deep")
    path = tmp_path / "output/stills.yaml"
    path.write_text("- [../../stills/cat.gif, x]\n")
    (stills / "same.gif").write_bytes((stills / "cat.gif").read_bytes())
    made = write_manifest(stills, path, FolderOptions(), append=True, is_shared=False)
    assert (made.added, [one.path.name for one in made.repeated]) == (3, ["same.gif"])


def test_a_manifest_in_a_folder_behind_a_link_finds_its_pictures(tmp_path: Path) -> None:
    (tmp_path / "disk/deep").mkdir(parents=True)
    (tmp_path / "output").symlink_to("disk/deep")
    write_picture(tmp_path / "stills/a.jpg")
    path = tmp_path / "output/stills.yaml"
    for added in (1, 0):
        assert own_manifest(tmp_path / "stills", path).added == added
        assert len(load(path).jobs) == 1
    assert [row["image"] for row in rows_of(path)] == ["../../stills/a.jpg"]


def test_a_picture_is_not_new_while_a_rows_picture_is_missing(stills: Path) -> None:
    """It may be that one under a new name, and would be paid for once more as a row of its own."""
    made = write(stills, prompt="x")
    before = made.path.read_bytes()
    (stills / "cat.gif").rename(stills / "kitten.gif")
    with pytest.raises(
        UsageError, match=r"cat\.gif, a row's picture, is missing, and .*kitten\.gif is in no"
    ):
        write(stills, prompt="x", append=True)
    assert made.path.read_bytes() == before
    made.path.write_text(made.path.read_text().replace("stills/cat.gif", "stills/kitten.gif"))
    assert write(stills, prompt="x", append=True).added == 0


@pytest.mark.parametrize("taken", ["cafe\u0301", '"café "', '"12"'])
def test_an_id_is_taken_however_it_is_written(tmp_path: Path, taken: str) -> None:
    stills = tmp_path / "stills"
    for name in ("café.jpg", "café .jpg", "12.jpg"):
        write_picture(stills / name)
    path = tmp_path / "stills.yaml"
    path.write_text(f"- id: {taken}\n  image: https://example.com/a.jpg\n  prompt: x\n", encoding="utf-8")
    assert write(stills, prompt="x", append=True).added == 3
    assert len(load(path).jobs) == 4


def test_a_manifest_of_another_folder_of_that_name_is_not_taken_for_this_ones(
    tmp_path: Path, stills: Path
) -> None:
    path = tmp_path / "output" / "stills.yaml"
    own_manifest(stills, path)
    before = path.read_bytes()
    for other in ("tuesday/stills", "copy/stills"):
        write_picture(tmp_path / other / "t.jpg")
    (tmp_path / "copy/stills/cat 9.JPG").write_bytes((stills / "cat 9.JPG").read_bytes())
    for other in ("tuesday", "copy"):
        with pytest.raises(UsageError, match=rf"another folder.*--output \S*/output/{other}/stills,"):
            own_manifest(tmp_path / other / "stills", path)
    assert path.read_bytes() == before
    made = own_manifest(tmp_path / "tuesday/stills", tmp_path / "output/tuesday/stills.yaml")
    assert made.added == 1


def test_a_project_that_was_moved_keeps_its_manifest(tmp_path: Path) -> None:
    write_picture(tmp_path / "project/stills/a.jpg")
    own_manifest(tmp_path / "project/stills", tmp_path / "project/output/stills.yaml")
    moved = (tmp_path / "project").rename(tmp_path / "moved")
    assert own_manifest(moved / "stills", moved / "output/stills.yaml").added == 0
    (tmp_path / "link").symlink_to(moved)
    assert own_manifest(tmp_path / "link/stills", moved / "output/stills.yaml").added == 0


@pytest.mark.parametrize(
    "rows", ["jobs:\n", "- [https://example.com/a.jpg, x]\n", "- [stills/gone.jpg, x]\n- [a/b.jpg, x]\n"]
)
def test_a_manifest_without_pictures_or_with_some_of_the_folder_is_not_another_ones(
    tmp_path: Path, rows: str
) -> None:
    write_picture(tmp_path / "stills/gone.jpg")
    path = tmp_path / "stills.yaml"
    path.write_text(rows)
    write_picture(tmp_path / "a/b.jpg", size=(1280, 721))
    assert own_manifest(tmp_path / "stills", path).added == (0 if "gone" in rows else 1)
