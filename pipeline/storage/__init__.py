"""Bytes to their place: a folder on this machine or an object store, behind one `OutputStore`.

It owns partial files, verification of what was written, final names and durability. It must not know
the vendor, the ledger or any key but the object store's own.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from pipeline.errors import UsageError
from pipeline.extras import missing_extra
from pipeline.storage.base import (
    PART_SUFFIX,
    FileStamp,
    OutputStore,
    PublishedFile,
    StagedFile,
    TransientStoreError,
)
from pipeline.storage.local import LocalStore

__all__ = [
    "PART_SUFFIX",
    "FileStamp",
    "LocalStore",
    "OutputStore",
    "PublishedFile",
    "StagedFile",
    "TransientStoreError",
    "is_object_url",
    "open_store",
]


def is_object_url(output: str) -> bool:
    """Whether `--output` names an object store rather than a folder."""
    return "://" in output and not output.startswith("file://")


def open_store(output: str) -> OutputStore:
    """Open the place that `output` names: a folder's path, or a URL of an object store.

    `s3://bucket/prefix`, `gs://...` and `az://...` find credentials and endpoint in the environment, as
    the vendors' own tools do (`AWS_ENDPOINT_URL` for an S3 that is not Amazon's), `s3://` also in the AWS
    profile. No object is created or requested yet. Raises `UsageError` for a URL that no store
    serves, for a profile that will not do, or when the extra `cloud` is not installed.
    """
    if not is_object_url(output):
        return LocalStore(_path_of(output) if output.startswith("file://") else output)
    try:
        from pipeline.storage.object_store import open_object_store
    except ImportError as error:
        raise missing_extra(f"--output {output}", "cloud") from error
    return open_object_store(output)


def _path_of(url: str) -> str:
    try:
        return unquote(urlsplit(url).path)
    except ValueError as error:
        raise UsageError(f"--output {url}: {error}") from error
