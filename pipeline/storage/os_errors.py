"""What an `OSError` of the output means: how it is explained, and whose it is."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from pipeline.errors import StoreError
from pipeline.storage.base import UnreadableFile

if TYPE_CHECKING:
    from pathlib import Path

_ADVICE: Final = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing there is not allowed",
    errno.EPERM: "writing there is not allowed",
    errno.EMFILE: "too many files are open at once; raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine; close other programs",
    errno.ENOENT: "the folder is gone",
    errno.ENOTDIR: "a file is where a folder should be",
    errno.EEXIST: "a file is where a folder should be",
    errno.ESTALE: "the network drive is gone",
}


_OF_ALL_PATHS: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EROFS}
)


class OwnershipLost(OSError):
    """Another process has taken a partial file over, or it was taken away."""


def to_store_error(error: OSError, root: Path, action: str = "write to") -> StoreError:
    """Return an error that names what could not be done, the place, and what to do."""
    location = error.filename if isinstance(error.filename, str) else str(root)
    message = _ADVICE.get(error.errno or 0, error.strerror or type(error).__name__)
    if action == "read" and error.errno in (errno.EACCES, errno.EPERM):
        message = "reading it is not allowed"
    of_one_file = action == "read" and isinstance(error.filename, str) and is_of_path(error, location)
    return (UnreadableFile if of_one_file else StoreError)(f"cannot {action} {location}: {message}")


def is_of_path(error: OSError, path: Path | str) -> bool:
    """Return whether an error concerns this one path, as a link to a drive that is gone or to itself does.

    The folder that holds it can be looked into: the output as a whole is well. Blocking.
    """
    if error.errno in _OF_ALL_PATHS:
        return False
    try:
        os.stat(f"{os.path.dirname(path)}/.")  # noqa: PTH116, PTH120 - `Path` drops the dot
    except OSError:
        return False
    return True
