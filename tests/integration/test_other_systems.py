"""What Windows and macOS lack or do otherwise, tried here by taking it away or by faking it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.ledger import sqlite_file
from pipeline.runner.preflight import WANTED_FILES, raise_open_file_limit
from pipeline.storage import files, part_files

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT_POSIX = """
import os, signal, sys, warnings
warnings.simplefilter("ignore")
for name in ("SIGHUP", "SIGKILL"):
    delattr(signal, name)
signal.SIGBREAK = signal.SIGUSR1
for name in ("pread", "set_blocking", "getuid", "O_NOFOLLOW", "O_CLOEXEC"):
    delattr(os, name)
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
import pipeline.cli.app, pipeline.cli.sandbox, pipeline.cli.verify, pipeline.runner.batch_handle
from pipeline.cli import signals
guard = signals.SignalGuard()
guard.install()
signal.raise_signal(signal.SIGBREAK)
"""


def test_the_command_is_imported_and_ended_without_what_only_posix_has() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_POSIX], capture_output=True, text=True, check=False)
    assert "Interrupted" in done.stderr.splitlines()[-1], done.stderr


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ON_WINDOWS", True)
    monkeypatch.setattr(files, "REPLACE_WAIT_S", 0.0)
    monkeypatch.delattr(os, "pread")


@pytest.mark.usefixtures("windows")
def test_a_file_is_hashed_without_pread_and_its_position_kept(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "part"
    path.write_bytes(b"0123456789")
    file = part_files.open_part(path)
    os.lseek(file, 7, os.SEEK_SET)
    sha = hashlib.sha256()
    files.hash_range(sha, file, 2, 9)
    assert (sha.digest(), os.lseek(file, 0, os.SEEK_CUR)) == (hashlib.sha256(b"2345678").digest(), 7)
    os.close(file)


@pytest.mark.usefixtures("windows")
def test_a_table_that_is_open_elsewhere_is_replaced_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [PermissionError("in use"), PermissionError("in use")]
    real = type(tmp_path).replace

    def replace(source: Path, target: Path) -> Path:
        if held:
            raise held.pop()
        return real(source, target)

    monkeypatch.setattr(type(tmp_path), "replace", replace)
    files.replace_file(tmp_path / "results.csv", b"new", True)
    assert (tmp_path / "results.csv").read_bytes() == b"new"
    held += [PermissionError("in use")] * 100
    with pytest.raises(PermissionError):
        files.replace_file(tmp_path / "results.csv", b"newer", True)
    assert (tmp_path / "results.csv").read_bytes() == b"new"


@pytest.mark.usefixtures("windows")
def test_a_ledger_is_made_without_syncing_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuses_folders(path: Path, *rest: int) -> int:
        if path.is_dir():
            raise PermissionError("folders cannot be opened")
        return real(path, *rest)

    monkeypatch.setattr(os, "open", refuses_folders)
    sqlite_file.create_if_missing(tmp_path / "ledger.sqlite3")
    assert (tmp_path / "ledger.sqlite3").exists()


def test_a_system_without_limits_of_open_files_has_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert raise_open_file_limit() == WANTED_FILES


def test_a_message_that_a_code_page_lacks_ends_nothing(tmp_path: Path) -> None:
    manifest = tmp_path / "夜.yaml"
    manifest.write_text("jobs:\n  - {image_url: 'https://example.com/a.jpg', prompt: 夜}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pipeline", "validate", str(manifest)]
    environ = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, env=environ, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"1 job, no problems" in done.stdout
