"""`veobatch verify`: reads every saved file, says which are not what was saved, and changes nothing."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import anyio
import pytest

from pipeline.cli import cli
from pipeline.model import State
from pipeline.storage.files import sha256_of
from tests.integration.engine_harness import EngineHarness

if TYPE_CHECKING:
    from pathlib import Path


async def make_batch(folder: Path) -> list[Path]:
    """Four saved videos in `folder`, and the paths of their files."""
    async with EngineHarness(folder) as harness:
        outcome = await harness.run(4)
    assert [record.state for record in outcome.records] == [State.DONE] * 4
    return sorted((folder / "videos").glob("*.mp4"))


def verify(folder: Path, *options: str) -> object:
    return cli.main(["verify", str(folder), *options], prog_name="veobatch", standalone_mode=False)


def test_everything_is_intact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    anyio.run(make_batch, tmp_path)
    assert verify(tmp_path) == 0
    assert capsys.readouterr().out == "4 videos: 4 intact\n"


def test_what_was_altered_or_is_missing_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One byte is changed and the time put back: only reading tells."""
    altered, missing, *_ = anyio.run(make_batch, tmp_path)
    before = altered.stat()
    with altered.open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)
        file.seek(before.st_size // 2)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(altered, ns=(before.st_atime_ns, before.st_mtime_ns))
    missing.unlink()
    ledger = (tmp_path / "ledger.sqlite3").read_bytes()
    assert verify(tmp_path, "--json") == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["checked"], result["intact"]) == (4, 2)
    assert [file["path"] for file in result["altered"]] == [f"videos/{altered.name}"]
    assert [file["path"] for file in result["missing"]] == [f"videos/{missing.name}"]
    assert (tmp_path / "ledger.sqlite3").read_bytes() == ledger
    assert verify(tmp_path) == 1
    assert "--fetch-missing" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_listed_and_the_others_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable, *_ = anyio.run(make_batch, tmp_path)

    def read(path: Path, size_bytes: int | None = None) -> str | None:
        if path == unreadable:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return sha256_of(path, size_bytes)

    monkeypatch.setattr("pipeline.storage.files.sha256_of", read)
    assert verify(tmp_path) == 1
    printed = capsys.readouterr().out
    assert f"cannot read {unreadable}: Input/output error" in printed
    assert "4 videos: 3 intact, 1 unreadable" in printed


def test_a_file_that_cannot_be_looked_at_is_listed_and_the_others_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop, *_ = anyio.run(make_batch, tmp_path)
    loop.unlink()
    loop.symlink_to(loop.name)
    assert verify(tmp_path) == 1
    printed = capsys.readouterr().out
    assert f"cannot read {loop}: {os.strerror(errno.ELOOP)}" in printed
    assert "4 videos: 3 intact, 1 unreadable" in printed


@pytest.mark.parametrize("read_all", [True, False])
def test_a_run_reads_only_when_asked(tmp_path: Path, read_all: bool) -> None:
    async def run_again() -> int:
        async with EngineHarness(tmp_path) as harness:
            await harness.run(2)
            path = min((tmp_path / "videos").glob("*.mp4"))
            before, whole = path.stat(), path.read_bytes()
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            await harness.run(verify=read_all)
            return path.read_bytes() == whole

    assert anyio.run(run_again) == read_all
