"""Return whether this manifest's rows are paid for in another folder already: run from elsewhere, or renamed.

Asked until a run has begun in the batch. Looks where earlier runs of the manifest may have put their output:
in `output/` here and beside the manifest's folders, and in a list of folders kept for this user.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.batch.own_files import TEMPORARY_SUFFIX, read_marker
from pipeline.batch.paths import DEFAULT_BATCH, LEDGER_NAME, BatchPaths
from pipeline.errors import UsageError, VeobatchError
from pipeline.model import MAYBE_PAID_STATES
from pipeline.plan import make_plan
from pipeline.results.next_step import RUN_FACTS_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.ledger import Ledger
    from pipeline.manifest import Manifest

_MAX_PARENTS: Final = 4
_MAX_FOLDERS: Final = 500


async def run_has_begun(ledger: Ledger) -> bool:
    """Return whether a run has begun to submit in this ledger, so that its batch was begun knowingly.

    A ledger alone does not show it: `adopt` makes one, and so does a run whose question is answered with No.
    """
    if await ledger.meta_get(RUN_FACTS_NAME) is not None:
        return True
    # An earlier version kept no facts of a run, and a ledger that was made again has none.
    return any(record.submission_no for record in await ledger.load())


async def reject_rows_paid_elsewhere(manifest: Manifest, paths: BatchPaths, *, adopts: bool = False) -> None:
    """Raise `UsageError` when another folder's ledger has rows of `manifest` that are or may be paid for.

    A batch counts when it was begun from this very file, or from one that is no longer there. `adopts` is
    for `veobatch adopt`, whose ways on are others than those of a run.
    """
    here = paths.folder.absolute()
    for folder in dict.fromkeys(_candidates(manifest.path, here)):
        if folder == here or not (folder / LEDGER_NAME).is_file():
            continue
        paid = await _paid_rows(manifest, folder)
        if paid:
            rows = "1 row" if paid == 1 else f"{paid:,} rows"
            command = f"veobatch {'adopt' if adopts else 'run'} {manifest.path}{' ...' if adopts else ''}"
            without = ", without --ledger and VEOBATCH_LEDGER" if paths.external_ledger else ""
            stay = (
                f"To begin another batch: --output {paths.output}" if adopts else "To pay again: --begin-anew"
            )
            raise UsageError(
                f"{rows} of {manifest.path} are paid for in {folder} already, and would be paid for again in "
                f"{paths.folder}. To go on there: {command} --output {folder}{without}. {stay}"
            )


async def reject_batch_of_another_manifest(ledger: Ledger, manifest: Manifest, paths: BatchPaths) -> None:
    """Raise `UsageError` when the batch under this manifest's name was begun from another one.

    One that took the other's place goes on with it: the other file is gone, and rows of the batch are in it.
    """
    begun_from = await begun_from_manifest(ledger)
    if begun_from in ("", str(manifest.path.absolute())):
        return
    same = _same_file(Path(begun_from), manifest.path)
    if same is None:
        plan = make_plan(manifest.jobs, await ledger.load())
        same = not plan.removed or len(plan.added) < len(manifest.jobs)
    if same:
        return
    shared = f"--batch {paths.batch}" if paths.external_ledger else f"--output {paths.output}"
    own = "--batch" if paths.external_ledger else "--output"
    raise UsageError(
        f"this name belongs to the batch of another manifest, {begun_from}: give {manifest.path} one of its "
        f"own with {own} NAME. To go on with that batch, whose rows that are not in this manifest count as "
        f"removed: {shared}. Nothing was submitted"
    )


async def begun_from_manifest(ledger: Ledger) -> str:
    """Return the absolute path of the manifest that the batch was last run from, "" before the first run."""
    return str(json.loads(await ledger.meta_get("manifest") or '""'))


def remember_folder(folder: Path) -> None:
    """Add a batch's folder to this user's list; a list that cannot be written is done without."""
    with contextlib.suppress(OSError):
        path = _list_path()
        folders = [
            str(folder.absolute()),
            *(name for name in _remembered() if name != str(folder.absolute())),
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + TEMPORARY_SUFFIX)
        new.write_text(json.dumps(folders[:_MAX_FOLDERS]), encoding="utf-8")
        new.replace(path)


def _candidates(manifest: Path, here: Path) -> Iterator[Path]:
    roots = [here.parent, *(parent / "output" for parent in manifest.absolute().parents[:_MAX_PARENTS])]
    for root in roots:
        with contextlib.suppress(OSError):
            yield from sorted(path for path in root.iterdir() if path.is_dir())
    yield from map(Path, _remembered())


async def _paid_rows(manifest: Manifest, folder: Path) -> int:
    from pipeline.batch.ledger_access import open_read_only_ledger

    marker = read_marker(folder)
    if marker is not None and (marker.sandbox or not _may_be_meant(marker.manifest, manifest.path)):
        return 0
    try:
        async with await open_read_only_ledger(BatchPaths(folder, str(folder), "", DEFAULT_BATCH)) as ledger:
            if await ledger.meta_get("vendor") == "sandbox":
                return 0
            if not _may_be_meant(await begun_from_manifest(ledger), manifest.path):
                return 0
            plan = make_plan(manifest.jobs, await ledger.load())
    # A ledger elsewhere that is damaged or locked must not keep this run from starting.
    except (VeobatchError, OSError, ValueError):
        return 0
    return sum(record.position >= 0 and record.state in MAYBE_PAID_STATES for record in plan.records)


def _same_file(begun_from: Path, manifest: Path) -> bool | None:
    """Return whether both are one file; None when the first is gone."""
    return begun_from.samefile(manifest) if begun_from.exists() else None


def _may_be_meant(begun_from: str, manifest: Path) -> bool:
    return begun_from == str(manifest.absolute()) or not Path(begun_from).exists()


def _list_path() -> Path:
    from platformdirs import user_state_path

    return user_state_path("veobatch") / "folders.json"


def _remembered() -> list[str]:
    try:
        found = json.loads(_list_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
