"""Blocks that outlive a run: those of unchanged rows, and of no others, whatever became of the file."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.model import Artifact, ExtraFile, Failure, Media, State
from pipeline.results.block_cache import BlockCache
from pipeline.results.csv_rows import CsvTable, csv_bytes
from pipeline.results.row_blocks import BLOCK_ROWS
from tests.unit.sample_rows import done, row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pipeline.model import Record

ROWS = [done(index) for index in range(3)]


def ids(rows: Sequence[Record]) -> str:
    return " ".join(record.id for record in rows)


def never(_: Sequence[Record]) -> str:
    raise AssertionError("this block was there")


def made_anew(_: Sequence[Record]) -> str:
    return "anew"


def cached(
    path: Path, make: Callable[[Sequence[Record]], str], rows: Sequence[Record], kind: str = "a"
) -> str:
    """Return the block of a run that begins with what is at `path` and leaves its own there."""
    cache = BlockCache()
    cache.open(path, sandbox=False)
    block = cache.kept(kind, make)(rows)
    cache.save()
    return block


def test_a_block_of_the_same_rows_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "blocks"
    expected = cached(path, ids, ROWS)
    assert cached(path, never, [replace(record) for record in ROWS]) == expected == ids(ROWS)
    assert cached(path, made_anew, ROWS, kind="b") == "anew"


@pytest.mark.parametrize(("name", "kind"), [(field.name, field.type) for field in fields(ROWS[0])])
def test_a_row_that_differs_in_any_field_is_another(tmp_path: Path, name: str, kind: str) -> None:
    cached(tmp_path / "blocks", ids, ROWS)
    other: Any = {"state": State.FAILED, "failure": Failure("odd", "it was"), "artifact": None}.get(
        name, "other" if kind == "str" else 12345.5
    )
    assert cached(tmp_path / "blocks", made_anew, [replace(ROWS[0], **{name: other}), *ROWS[1:]]) == "anew"


@pytest.mark.parametrize("name", [field.name for field in fields(Artifact) if field.name != "media"])
def test_a_row_whose_file_differs_is_another(tmp_path: Path, name: str) -> None:
    artifact = ROWS[0].artifact
    assert artifact is not None
    cached(tmp_path / "blocks", ids, ROWS)
    other: Any = {"size_bytes": 7, "mtime_ns": 7, "extra": (ExtraFile("b.mp4", 1, "f"),)}.get(name, "other")
    changed = replace(ROWS[0], artifact=replace(artifact, **{name: other}))
    assert cached(tmp_path / "blocks", made_anew, [changed, *ROWS[1:]]) == "anew"


@pytest.mark.parametrize("name", [None, *(field.name for field in fields(Media))])
def test_a_row_whose_media_differ_is_another(tmp_path: Path, name: str | None) -> None:
    artifact = ROWS[0].artifact
    assert artifact is not None
    assert artifact.media is not None
    cached(tmp_path / "blocks", ids, ROWS)
    value: Any = ("odd",) if name == "warnings" else "other" if "codec" in str(name) else 7
    media = None if name is None else replace(artifact.media, **{name: value})
    changed = replace(ROWS[0], artifact=replace(artifact, media=media))
    assert cached(tmp_path / "blocks", made_anew, [changed, *ROWS[1:]]) == "anew"


def test_rows_that_have_not_ended_are_not_kept(tmp_path: Path) -> None:
    cached(tmp_path / "blocks", ids, [row(0)])
    assert not (tmp_path / "blocks").exists()


@pytest.mark.parametrize("damage", [b"", b"veobatch blocks []", b"veobatch blocks \xff\n{}", None])
def test_a_damaged_file_counts_as_absent(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "blocks"
    cached(path, ids, ROWS)
    data = path.read_bytes()
    path.write_bytes(data[:-3] + b"x" + data[-2:] if damage is None else damage)
    assert cached(path, made_anew, ROWS) == "anew"
    assert cached(path, never, ROWS) == "anew"


def test_a_file_of_another_version_counts_as_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(tmp_path / "blocks", ids, ROWS)
    monkeypatch.setattr("pipeline.results.block_cache.__version__", "0.0.1")
    assert cached(tmp_path / "blocks", made_anew, ROWS) == "anew"


def test_a_csv_of_kept_blocks_is_the_one_that_is_made_of_nothing(tmp_path: Path) -> None:
    rows = [done(index) for index in range(BLOCK_ROWS + 5)]
    for changed in (0, 1, BLOCK_ROWS + 1):
        rows[changed] = replace(rows[changed], pick="picked")
        cache = BlockCache()
        cache.open(tmp_path / "blocks", sandbox=False)
        assert CsvTable(cache=cache).to_bytes(rows) == csv_bytes(rows)
        cache.save()


def test_without_a_file_nothing_is_kept(tmp_path: Path) -> None:
    cache = BlockCache()
    assert [cache.kept("a", ids)(ROWS), cache.kept("a", made_anew)(ROWS)] == [ids(ROWS), "anew"]
    cache.save()
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_users_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    path = tmp_path / "blocks"
    for theirs in (b"notes of mine", b"[]", b"\xff\n{}"):
        path.write_bytes(theirs)
        assert cached(path, ids, ROWS) == ids(ROWS)
        assert path.read_bytes() == theirs
    (tmp_path / "folder").mkdir()
    assert cached(tmp_path / "folder", ids, ROWS) == ids(ROWS)
