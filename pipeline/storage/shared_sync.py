"""One fsync of a folder for all names that several threads have put into it meanwhile."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pipeline.storage import files

if TYPE_CHECKING:
    from pathlib import Path


class SharedSync:
    """Makes the names in one folder survive a power cut; callers at the same time share one fsync."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed = threading.Condition()
        self._begun = self._done = 0
        self._running = False

    def sync(self) -> None:
        """Return once an fsync has ended well that began after this call; raises `OSError` of one's own."""
        with self._changed:
            # The one that runs may have read the folder before our name was in it: it does not count.
            wanted = self._begun + 1
            self._changed.wait_for(lambda: self._done >= wanted or not self._running)
            if self._done >= wanted:
                return
            self._running, self._begun = True, self._begun + 1
            number = self._begun
        try:
            files.sync_folder(self._folder)
        except BaseException:
            self._end(0)  # those who wait try it themselves
            raise
        self._end(number)

    def _end(self, done: int) -> None:
        with self._changed:
            self._running, self._done = False, max(self._done, done)
            self._changed.notify_all()
