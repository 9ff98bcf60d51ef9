"""Folders of a Ray of our own go once their driver is gone, and no other folder of the user's does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pipeline.cluster import temp_folders
from pipeline.cluster.temp_folders import OWNER_LOCK_NAME, OWNER_MARK, make_temp_folder, remove_temp_folders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(temp_folders, "TEMP_ROOT", str(tmp_path))
    yield tmp_path
    remove_temp_folders()


def make_old(folder: Path) -> Path:
    """A folder with a file in it, that nothing has changed for hours."""
    folder.mkdir(exist_ok=True)
    (folder / "ledger.sqlite3").write_bytes(b"paid for")
    os.utime(folder, (0.0, 0.0))
    return folder


def abandoned_folder(folder: Path) -> Path:
    """A folder as a driver leaves it that was killed, some hours ago."""
    folder.mkdir()
    (folder / OWNER_LOCK_NAME).write_bytes(OWNER_MARK)
    return make_old(folder)


@pytest.mark.parametrize(
    "name", ["veobatch-night", "veobatch-ray-night", "veobatch-pictures-x", "veobatch-reel-x"]
)
@pytest.mark.parametrize("lock", [None, b"", b"somebody's own"])
def test_a_folder_without_our_mark_is_left_alone(root: Path, name: str, lock: bytes | None) -> None:
    folder = root / name
    folder.mkdir()
    if lock is not None:
        (folder / OWNER_LOCK_NAME).write_bytes(lock)
    make_old(folder)
    make_temp_folder()
    assert (folder / "ledger.sqlite3").read_bytes() == b"paid for"
    assert (folder / OWNER_LOCK_NAME).exists() is (lock is not None), "nothing is written into it"


def test_a_link_to_an_abandoned_folder_removes_nothing(root: Path) -> None:
    folder = abandoned_folder(root / "elsewhere")
    (root / f"{temp_folders.TEMP_PREFIX}link").symlink_to(folder)
    os.utime(root / f"{temp_folders.TEMP_PREFIX}link", (0.0, 0.0), follow_symlinks=False)
    make_temp_folder()
    assert (folder / "ledger.sqlite3").exists()


def test_an_abandoned_folder_goes_and_one_that_is_held_or_new_stays(root: Path) -> None:
    held = make_old(make_temp_folder())
    abandoned = abandoned_folder(root / f"{temp_folders.TEMP_PREFIX}abandoned")
    new = abandoned_folder(root / f"{temp_folders.TEMP_PREFIX}new")
    os.utime(new)
    made = make_temp_folder()
    assert not abandoned.exists()
    assert new.exists()
    assert (held / OWNER_LOCK_NAME).read_bytes() == OWNER_MARK
    assert made.stat().st_mode & 0o777 == 0o700
    remove_temp_folders()
    assert not held.exists()
    assert not made.exists()


def test_the_paths_of_rays_sockets_fit() -> None:
    """A socket's path may have 103 characters."""
    name = f"{temp_folders.TEMP_ROOT}/{temp_folders.TEMP_PREFIX}{'x' * 8}/ray"
    assert len(f"{name}/session_2026-11-30_18-51-45_123456_4194304/sockets/plasma_store") <= 103
