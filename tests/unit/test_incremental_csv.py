"""The CSV that is made of the one before: the one that is written at once, whatever became of the file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.results import csv_rows
from pipeline.results.block_cache import BlockCache
from pipeline.results.csv_rows import csv_bytes
from pipeline.results.incremental_csv import IncrementalCsv
from pipeline.results.row_blocks import BLOCK_ROWS
from tests.unit.sample_rows import done
from tests.unit.test_row_blocks import CHANGES, in_flight, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.model import Record


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"job", b"JOB"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-70])


def empty(path: Path) -> None:
    path.write_bytes(b"")


TAMPERING: dict[str, Callable[[Path], None]] = {
    "edit": edit,
    "cut": cut,
    "empty": empty,
    "remove": Path.unlink,
}


def csv_file(path: Path, *, sandbox: bool = False) -> IncrementalCsv:
    return IncrementalCsv(path, sandbox=sandbox, cache=BlockCache())


def in_flight_rows() -> list[Record]:
    return [in_flight(index) for index in range(2 * BLOCK_ROWS + 7)]


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from([*CHANGES, *TAMPERING, "drop"]), st.integers(0, 16)), max_size=8),
        max_size=5,
    ),
    st.sampled_from(["pending", "in flight", "done"]),
    st.booleans(),
)
def test_a_file_that_is_kept_up_is_the_one_that_is_written_at_once(
    rounds: list[list[tuple[str, int]]], start: str, sandbox: bool
) -> None:
    rows = [CHANGES[start](index) for index in range(17)]
    with tempfile.TemporaryDirectory() as folder, patch("pipeline.results.row_blocks.BLOCK_ROWS", 5):
        path = Path(folder) / "results.csv"
        file = csv_file(path, sandbox=sandbox)
        for changes in [[], *rounds]:
            for change, index in changes:
                if change == "drop":
                    del rows[index % len(rows)]
                elif change not in TAMPERING:
                    rows[index % len(rows)] = CHANGES[change](index)
                elif path.exists():
                    TAMPERING[change](path)
            file.write(rows)
            assert path.read_bytes() == csv_bytes(rows, sandbox=sandbox)
            assert list(path.parent.iterdir()) == [path]


def written_rows(monkeypatch: pytest.MonkeyPatch, file: IncrementalCsv, rows: Sequence[Record]) -> int:
    """Write the file; return of how many rows a line was made."""
    models: list[str] = []

    def text_of(value: str) -> str:
        models.append(value)
        return value

    with monkeypatch.context() as patched:
        patched.setattr(csv_rows, "csv_text", text_of)
        file.write(rows)
    return models.count("google/veo-3.1-i2v-fast")


def test_only_lines_of_rows_that_have_changed_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, rows = csv_file(tmp_path / "results.csv"), in_flight_rows()
    file.write(rows)
    for index in (3, BLOCK_ROWS, BLOCK_ROWS + 1):
        rows[index] = refused(index)
    assert written_rows(monkeypatch, file, rows) == 3
    assert written_rows(monkeypatch, file, rows) == 0
    edit(tmp_path / "results.csv")
    assert written_rows(monkeypatch, file, rows) == len(rows)


def test_a_file_that_could_not_be_replaced_is_still_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rows = tmp_path / "results.csv", in_flight_rows()
    file = csv_file(path)
    file.write(rows)
    before = path.read_bytes()
    rows[3] = refused(3)
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.storage.files.replace_over", lambda *_: (_ for _ in ()).throw(OSError()))
        with pytest.raises(OSError):  # noqa: PT011 - any error of the disk
            file.write(rows)
    assert [path.read_bytes(), list(tmp_path.iterdir())] == [before, [path]]
    assert written_rows(monkeypatch, file, rows) == 1
    assert path.read_bytes() == csv_bytes(rows)


def test_blocks_of_the_last_run_are_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [done(index) for index in range(BLOCK_ROWS + 5)]
    expected, made = csv_bytes(rows), []
    for _ in range(2):
        cache = BlockCache()
        cache.open(tmp_path / "blocks", sandbox=False)
        file = IncrementalCsv(tmp_path / "results.csv", sandbox=False, cache=cache)
        made.append(written_rows(monkeypatch, file, rows))
        assert (tmp_path / "results.csv").read_bytes() == expected
        cache.save()
    assert made == [len(rows), 0]
