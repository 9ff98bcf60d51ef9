"""Threads that wait for a folder's fsync share one, and none goes on before one that began after it asked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.storage import files
from pipeline.storage.shared_sync import SharedSync

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WAITING = 4
PATIENCE_S = 60.0


class CountingCondition(threading.Condition):
    """Says when so many threads wait for the first fsync."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.all_wait = threading.Event()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        self.asked += 1
        if self.asked == 1 + WAITING:
            self.all_wait.set()  # whoever ends the fsync needs the lock, which the last has until it waits
        return super().wait_for(predicate, timeout)


class Disk:
    """An fsync that lasts until it is let go; the first one fails when asked to."""

    def __init__(self, *, first_fails: bool = False) -> None:
        self.begun, self.first_fails = 0, first_fails
        self.first_runs, self.go_on = threading.Event(), threading.Event()

    def sync_folder(self, _: Path) -> None:
        self.begun += 1
        self.first_runs.set()
        assert self.go_on.wait(PATIENCE_S)
        if self.first_fails and self.begun == 1:
            raise OSError(5, "the disk failed")


@pytest.mark.parametrize("first_fails", [False, True])
def test_all_that_wait_behind_one_share_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first_fails: bool
) -> None:
    disk, condition = Disk(first_fails=first_fails), CountingCondition()
    monkeypatch.setattr(files, "sync_folder", disk.sync_folder)
    shared = SharedSync(tmp_path)
    shared._changed = condition
    with ThreadPoolExecutor(1 + WAITING) as threads:
        first = threads.submit(shared.sync)
        assert disk.first_runs.wait(PATIENCE_S)
        others = [threads.submit(shared.sync) for _ in range(WAITING)]
        assert condition.all_wait.wait(PATIENCE_S)
        assert not any(other.done() for other in others)
        disk.go_on.set()
        for other in others:
            other.result(PATIENCE_S)
        assert isinstance(first.exception(PATIENCE_S), OSError) is first_fails
    assert disk.begun == 2


def test_each_call_by_itself_reaches_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disk = Disk()
    disk.go_on.set()
    monkeypatch.setattr(files, "sync_folder", disk.sync_folder)
    shared = SharedSync(tmp_path)
    for calls in (1, 2, 3):
        shared.sync()
        assert disk.begun == calls
