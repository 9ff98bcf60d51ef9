"""The cache of small JSON files: a bad file counts as absent, a bad folder is ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pipeline.net.json_cache import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("value", [{}, {"a": [1, None, "ü\ud800"]}, [], 0, "text"])
def test_what_is_written_is_read(tmp_path: Path, value: object) -> None:
    path = tmp_path / "new" / "folder" / "x.json"
    write_json(path, value)
    write_json(path, value)
    assert read_json(path) == value
    assert [one.name for one in path.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"NaN,"])
def test_a_damaged_file_counts_as_absent(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    assert read_json(path) is None
    assert read_json(tmp_path / "missing.json") is None
    assert read_json(tmp_path) is None


@pytest.mark.parametrize("folder", ["a-file", "a-folder"])
def test_a_place_that_cannot_be_written_is_ignored(tmp_path: Path, folder: str) -> None:
    (tmp_path / "a-file").write_text("")
    (tmp_path / "a-folder" / "x.json").mkdir(parents=True)
    write_json(tmp_path / folder / "x.json", {"a": 1})
    assert read_json(tmp_path / folder / "x.json") is None
    assert not list((tmp_path / "a-folder").glob("*.part"))


def test_what_is_no_json_leaves_the_earlier_value(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, [1])
    endless: list[Any] = []
    endless.append(endless)
    write_json(path, endless)
    assert read_json(path) == [1]
