"""One run at a time in a folder, in words that name who has it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import BatchLocked, ExitCode, StopReason, StoreError
from pipeline.ledger.lock import HOLDER_FILE_NAME, LOCK_FILE_NAME, hold_lock

if TYPE_CHECKING:
    from pathlib import Path

LOCK_HOLDER_SCRIPT = """
import sys, time
from pathlib import Path
from pipeline.ledger.lock import hold_lock
with hold_lock(Path(sys.argv[1]), command="veobatch run night.yaml", started_at="2026-08-01T00:00:00Z"):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_lock_holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK_HOLDER_SCRIPT, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_told_who_is_first_and_touches_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with start_lock_holder(folder) as process:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(BatchLocked) as caught, hold_lock(folder, command="me", started_at="now"):
            pytest.fail("two at once")
        assert str(process.pid) in str(caught.value)
        assert "veobatch run night.yaml" in str(caught.value)
        assert "2026-08-01T00:00:00Z" in str(caught.value)
        assert caught.value.exit_code is ExitCode.RESUMABLE
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert process.stdin is not None
        process.stdin.close()


def test_a_lock_of_the_dead_is_no_obstacle(tmp_path: Path) -> None:
    with start_lock_holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / HOLDER_FILE_NAME).exists()
        with hold_lock(tmp_path, command="me", started_at="now"):
            assert json.loads((tmp_path / HOLDER_FILE_NAME).read_text())["pid"] == os.getpid()


def test_the_folder_is_made_and_let_go(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    for _ in range(2):
        with hold_lock(folder, command="me", started_at="now"):
            assert (folder / LOCK_FILE_NAME).exists()
        assert not (folder / HOLDER_FILE_NAME).exists()


def test_it_is_let_go_when_the_body_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold_lock(tmp_path, command="me", started_at="now"):
        raise KeyError
    with hold_lock(tmp_path, command="me", started_at="now"):
        pass


@pytest.mark.parametrize("words", ["", "not json", "[]", "{}", '{"pid": 1}', "\udcff"])
def test_a_holder_that_left_no_readable_word_is_just_another_process(tmp_path: Path, words: str) -> None:
    with hold_lock(tmp_path, command="me", started_at="now"):
        (tmp_path / HOLDER_FILE_NAME).write_bytes(words.encode("utf-8", "surrogateescape"))
        with (
            pytest.raises(BatchLocked, match="another process"),
            hold_lock(tmp_path, command="you", started_at="now"),
        ):
            pytest.fail("two at once")


def test_impossible_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match="file") as caught,
        hold_lock(tmp_path / "file" / "x", command="", started_at=""),
    ):
        pytest.fail("held a folder inside a file")
    assert caught.value.reason is StopReason.DISK


def test_file_system_without_locks_is_an_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(_: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    with pytest.raises(StoreError), hold_lock(tmp_path, command="", started_at=""):
        pytest.fail("held without a lock")
