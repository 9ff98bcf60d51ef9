"""A copy in a folder that was set aside, beside a note of whose it is. Everything here blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.storage import files

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class AsideCopy:
    """Where a copy lies that was set aside, if one does, and where its note lies."""

    path: Path
    note_path: Path

    def exists(self) -> bool:
        return self.path.exists()

    def tag(self) -> str:
        """Return what the copy was tagged with; "" when there is no copy, or no note of it."""
        return files.read_text(self.note_path).rpartition("\n")[2] if self.exists() else ""

    def take(self, part_path: Path, origin_path: Path) -> None:
        """Move a partial file and its note here; what was here is replaced."""
        part_path.replace(self.path)
        try:
            origin_path.replace(self.note_path)
        except FileNotFoundError:  # somebody removed the note: nobody knows whose the bytes are
            self.note_path.unlink(missing_ok=True)

    def give_back(self, part_path: Path) -> None:
        """Make the copy the partial file again; its note is the caller's to write, before."""
        self.path.replace(part_path)
        self.note_path.unlink(missing_ok=True)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note_path.unlink(missing_ok=True)
