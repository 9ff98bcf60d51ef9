"""Bytes to their place: a folder on this machine or an object store, behind one `Store`.

It owns partial files, verification of what was written, final names and durability. It must not know
the vendor, the ledger or any key but the object store's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.errors import UsageError
from pipeline.storage.base import Part, Published, Store
from pipeline.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LocalStore", "Part", "Published", "Store", "is_object_url", "open_store"]

OBJECT_SCHEMES: Final = ("s3://", "s3a://", "gs://", "az://", "azure://", "abfs://", "abfss://", "memory://")


def is_object_url(output: str) -> bool:
    """Whether `--output` names an object store rather than a folder."""
    return "://" in output


def open_store(output: str, *, environ: Mapping[str, str] | None = None) -> Store:
    """Open the place that `output` names: a folder's path, or a URL of an object store.

    Nothing is created and nothing is asked yet. Raises `UsageError` for a URL that no store serves,
    or when the extra `cloud` is not installed.
    """
    if not is_object_url(output):
        return LocalStore(output)
    raise UsageError(f"--output {output}: not yet")
