"""The pictures that a manifest's rows name already: where they are, and which other files have their content.

Blocking. Rows are as YAML reads them; what is wrong with one is for the manifest's own reader to say.
"""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.manifest.local_files import file_sha256, find_file, is_local

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class RepeatedPicture:
    """A file with the content of a row's picture, and that picture's path."""

    path: Path
    known_as: Path


@dataclass(frozen=True, slots=True)
class RowPictures:
    """The files that rows name as their image: those that exist, by their resolved paths, and the others."""

    found: dict[Path, Path]
    missing: tuple[Path, ...]

    @classmethod
    def of(cls, rows: Iterable[Any], base: Path) -> RowPictures:
        """Return the pictures of `rows`, whose paths count from `base`."""
        found: dict[Path, Path] = {}
        missing = []
        for image in _images(rows):
            path = find_file(base, image)
            if path is None:
                missing.append(base / image)
            else:
                found.setdefault(path.resolve(), path)
        return cls(found, tuple(missing))

    def example(self) -> Path | None:
        """Return the place of one of them, None when there is none."""
        path = next(iter((*self.found.values(), *self.missing)), None)
        return path and _place(path)

    def some_lie_in(self, folder: Path) -> bool:
        """Return whether one of them lies, or should lie, in `folder` or in a folder of it."""
        parents = {path.parent for path in (*self.found.values(), *self.missing)}
        return any(_is_within(parent.resolve(), folder.resolve()) for parent in parents)

    def without_known(self, pictures: Iterable[Path]) -> tuple[list[Path], list[RepeatedPicture]]:
        """Return which of `pictures` are no row's, and which are a row's under another name.

        Raises `UsageError` when that cannot be told: a row's picture is missing, and may be one of them.
        """
        missing = {_composed(path) for path in self.missing}
        elsewhere = [
            picture
            for picture in pictures
            if picture.resolve() not in self.found and _composed(picture) not in missing
        ]
        if not elsewhere:
            return [], []
        by_content = self._by_content({_size(picture) for picture in elsewhere})
        new, repeated = [], []
        for picture in elsewhere:
            known = by_content.get(_sha256(picture)) if by_content else None
            if known is None:
                new.append(picture)
            elif not known.samefile(picture):  # a file system may know one file by several names
                repeated.append(RepeatedPicture(picture, _place(known)))
        if new and self.missing:
            raise UsageError(
                f"{_place(self.missing[0])}, a row's picture, is missing, and {new[0]} is in no row. If they "
                "are the same, write the new name into the row; else put the picture back, or delete its row"
            )
        return new, repeated

    def _by_content(self, sizes: set[int]) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in self.found.values():
            if _size(path) in sizes and (sha256 := _sha256(path)):
                found.setdefault(sha256, path)
        return found


def _images(rows: Iterable[Any]) -> Iterator[str]:
    for row in rows:
        image = row.get("image", row.get("image_url")) if isinstance(row, dict) else row[0] if row else None
        if isinstance(image, str) and is_local(image) and image[:5].lower() != "data:":
            yield image


def _place(path: Path) -> Path:
    return path.parent.resolve() / path.name


def _composed(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path.resolve()))


def _is_within(folder: Path, outer: Path) -> bool:
    for one in (folder, *folder.parents):
        with suppress(OSError):
            if one == outer or _composed(one) == _composed(outer) or one.samefile(outer):
                return True
    return False


def _size(path: Path) -> int:
    """Return a file's size in bytes, -1 for what cannot be read."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _sha256(path: Path) -> str:
    """Return the hash of a file's content, "" for what cannot be read."""
    try:
        return file_sha256(path)
    except OSError:
        return ""
