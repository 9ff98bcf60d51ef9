"""The pictures of a batch that are files: checked before anything is spent, and delivered while it runs."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from anyio import to_thread

from pipeline.manifest.problems import ManifestProblems

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import aiohttp

    from pipeline.images.delivery import PictureDelivery, Pictures
    from pipeline.manifest import Manifest, Problem
    from pipeline.settings import Settings

FOLDER_NAME: Final = "pictures.veobatch-tmp"
_CONVERTED_NAME: Final = re.compile(r"[0-9a-f]{64}(-(pad|crop)-[\w.-]*)?(\.\d+)?")
"""What `pipeline.images.normalize` calls a picture that it converts, and one that is not whole yet."""


def picture_delivery(
    manifest: Manifest, settings: Settings, *, sandbox: bool = False
) -> PictureDelivery | None:
    """Return how the manifest's files travel, None when it names none."""
    if not manifest.files.files:
        return None
    from pipeline.images.delivery import PictureDelivery

    return PictureDelivery.of(manifest.files, settings, any_by_value=sandbox)


def check_pictures(
    manifest: Manifest, settings: Settings, *, sandbox: bool = False, needs_way: bool = True
) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    """Return the doubts about the manifest's files, and how they will travel.

    Blocking. Raises `ManifestProblems` for a file that is no picture, and with `needs_way` when there is no
    way for one to reach the vendor; else that is a warning.
    """
    delivery = picture_delivery(manifest, settings, sandbox=sandbox)
    if delivery is None:
        return (), ()
    from pipeline.images.local import check_local_files, describe_ways, missing_way

    name = str(manifest.path)
    found = check_local_files(manifest.jobs, delivery, name)
    stuck = missing_way(manifest.jobs, delivery, name)
    problems = (*found.problems, *((stuck,) if stuck and needs_way else ()))
    if problems:
        raise ManifestProblems(problems, models=manifest.models)
    warnings = (*found.warnings, *((stuck,) if stuck else ()))
    return warnings, tuple(describe_ways(manifest.jobs, delivery))


@asynccontextmanager
async def open_pictures(
    delivery: PictureDelivery | None, folder: Path, session: aiohttp.ClientSession
) -> AsyncIterator[Pictures | None]:
    """Give what delivers the files of a batch whose folder is `folder`; nothing of ours stays there.

    Raises `UsageError` for an image store that will not do.
    """
    if delivery is None:
        yield None
        return
    from pipeline.images.delivery import Pictures

    converted = folder / FOLDER_NAME
    await to_thread.run_sync(_remove_converted, converted)
    try:
        yield Pictures(delivery, converted, session)
    finally:
        _remove_converted(converted)


def _remove_converted(folder: Path) -> None:
    """Remove the pictures that were converted, and their folder unless something else lies in it."""
    with suppress(OSError):
        for path in list(folder.iterdir()):
            if _CONVERTED_NAME.fullmatch(path.name):
                path.unlink(missing_ok=True)
        folder.rmdir()
