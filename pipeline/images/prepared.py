"""A picture that is ready to travel, and why one is not. Imports no Pillow: most runs send addresses."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class PictureFault(StrEnum):
    """Whose fault it is: the picture's for good, what the next run may find in order, or the store's."""

    PICTURE = "picture"
    TRANSIENT = "transient"
    STORE = "store"


class PictureError(Exception):
    """A picture that cannot be sent; the message says why, for the row that names it."""

    def __init__(self, message: str, kind: PictureFault = PictureFault.PICTURE) -> None:
        super().__init__(message)
        self.kind = kind


def changed_meanwhile() -> PictureError:
    """Return the error for a file that is not what the manifest named any more."""
    return PictureError("it was changed while the run was going on", PictureFault.TRANSIENT)


def unreadable(error: OSError) -> PictureError:
    """Return the error for a file that cannot be read now."""
    return PictureError(f"it cannot be read: {error.strerror}", PictureFault.TRANSIENT)


@dataclass(frozen=True, slots=True)
class Fit:
    """What becomes of a picture whose shape is not the clip's: `pad` it with black, or `crop` it."""

    how: str
    aspect_ratio: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture (or video) ready to travel: where its bytes are, and what they are."""

    path: Path
    sha256: str
    size_bytes: int
    content_type: str
    extension: str
