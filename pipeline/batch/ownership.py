"""Whose output folder this is: a marker names the ledger that owns it.

Files that veobatch did not write are never written over, moved or removed, and a batch whose ledger is
missing is recognised by what it left. Everything here is local and quick; nothing is bought before it.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline import __version__, clocks
from pipeline.batch.ledger_access import redact_password
from pipeline.batch.own_files import (
    JOURNAL_NAME,
    MARKER_NAME,
    MEDIA_FOLDERS,
    Marker,
    bought_rows_in,
    count_bought_rows,
    foreign_files,
    is_our_csv,
    ledger_companions,
    log_shows_submissions,
    media_files,
    read_marker,
    write_marker,
)
from pipeline.batch.paths import LEDGER_NAME
from pipeline.errors import UsageError
from pipeline.reconcile.uncertain_history import note_uncertain
from pipeline.results import CSV_NAME, LOG_NAME, REPORT_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.batch.paths import BatchPaths
    from pipeline.ledger import Ledger
    from pipeline.storage import OutputStore

_MAX_NAMED: Final = 5


def check_folder(paths: BatchPaths, manifest: Path, *, sandbox: bool, begin_anew: bool = False) -> bool:
    """Raise `UsageError` when the folder holds other people's files or a batch that lost its ledger.

    Only reads. With `begin_anew` the latter is allowed: the answer says whether there is such a batch, whose
    files `set_aside_lost_batch` then moves out of the way.
    """
    reject_manifest_among_results(paths, manifest)
    reject_dangling_media_folders(paths)
    reject_foreign_files(paths)
    signs = lost_batch_signs(paths, sandbox=sandbox)
    if signs and not begin_anew:
        raise lost_batch_error(paths, manifest, signs)
    return bool(signs)


def reject_foreign_files(paths: BatchPaths) -> None:
    """Raise `UsageError` for files of the user's own under names that veobatch would write to."""
    foreign = foreign_files(paths)
    if foreign:
        names = _named([str(path) for path in foreign])
        raise UsageError(
            f"veobatch did not write {names} and would overwrite it: choose another folder with --output, or "
            "move these files away. Nothing was changed"
        )


def lost_batch_error(paths: BatchPaths, manifest: Path, signs: Iterable[str]) -> UsageError:
    """Return the error for a batch whose ledger is not where it is looked for, with the ways on."""
    marker = read_marker(paths.folder)
    if marker is not None and marker.ledger:
        found = f"its ledger is {marker.ledger} (batch {marker.batch}): give --ledger, and --batch if need be"
    else:
        found = f"put {paths.folder / LEDGER_NAME} back if you have it, or name it with --ledger"
    table = paths.output_path(CSV_NAME)
    return UsageError(
        f"{paths.folder} holds a batch without its ledger ({_named(list(signs))}): what is paid for is not "
        f"known, and a run would pay again. Nothing was submitted. Ways on: {found}; rebuild the ledger with "
        f"veobatch adopt {manifest} --from {table}; or pay for everything again with --begin-anew"
    )


def reject_manifest_among_results(paths: BatchPaths, manifest: Path) -> None:
    """Raise `UsageError` when a file of the output would be written over the manifest."""
    if "://" in paths.output:
        return
    ours = [paths.folder, Path(paths.output)]
    names = (CSV_NAME, REPORT_NAME, LOG_NAME, LEDGER_NAME, MARKER_NAME, JOURNAL_NAME)
    taken = {(folder / name).resolve() for folder in ours for name in names}
    resolved = manifest.resolve()
    if resolved in taken or any(
        (folder / name).resolve() in resolved.parents for folder in ours for name in MEDIA_FOLDERS
    ):
        raise UsageError(
            f"{manifest} lies where the run would write a file of its own: choose another --output, "
            "or rename the manifest"
        )


def reject_dangling_media_folders(paths: BatchPaths) -> None:
    """Raise `UsageError` for `videos` or `posters` where no file can be saved; before money is spent."""
    if "://" in paths.output:
        return
    for name in MEDIA_FOLDERS:
        path = Path(paths.output) / name
        if path.is_symlink() and not path.exists():
            raise UsageError(
                f"{path} is a link to {path.readlink()}, which does not exist: mend it, or remove it"
            )
        if path.exists() and not path.is_dir():
            raise UsageError(
                f"{path} is a file where a folder has to be: move it away, or choose another --output"
            )


def lost_batch_signs(paths: BatchPaths, *, sandbox: bool, ledger_is_empty: bool = False) -> list[str]:
    """Return what shows that something was bought here by a batch whose ledger is missing.

    A rehearsal's leftovers do not count in a rehearsal. `ledger_is_empty` is for ledgers outside the folder,
    of which it is known only once they are open.
    """
    folder = paths.folder
    if not ledger_is_empty and (paths.external_ledger or (folder / LEDGER_NAME).exists()):
        return []
    marker = read_marker(folder)
    rehearsed = marker.sandbox if marker is not None else (folder / JOURNAL_NAME).exists()
    if sandbox and rehearsed:
        return []
    output = folder if "://" in paths.output else Path(paths.output)
    signs = [MARKER_NAME] if marker is not None else []
    bought = bought_rows_in(output / CSV_NAME)
    signs += [f"{bought} paid rows in {CSV_NAME}"] if bought else []
    signs += [LOG_NAME] if log_shows_submissions(folder / LOG_NAME) else []
    if not (folder / LEDGER_NAME).exists():
        signs += [path.name for path in ledger_companions(folder) if path.exists()]
    media = media_files(output)
    signs += [f"{len(media)} files in {' and '.join(MEDIA_FOLDERS)}"] if media else []
    return signs


def set_aside_lost_batch(paths: BatchPaths, *, sandbox: bool) -> Path:
    """Move what a batch without its ledger left into a folder of its own, and return that.

    For `--begin-anew`, after `check_folder` found all of it to be ours.
    """
    folder = paths.folder
    aside = folder / f"before-{_stamp()}"
    aside.mkdir()
    names = [CSV_NAME, REPORT_NAME, LOG_NAME, MARKER_NAME, *MEDIA_FOLDERS]
    names += [] if sandbox else [JOURNAL_NAME]  # the sandbox of this run has it open
    movable = [folder / name for name in names] + ledger_companions(folder)
    movable += [folder / LEDGER_NAME] if paths.external_ledger else []
    for path in movable:
        if os.path.lexists(path):
            path.rename(aside / path.name)
    return aside


def _stamp() -> str:
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime(clocks.wall()))


def set_aside_journals(folder: Path) -> None:
    """Rename what a lost ledger's database left beside it: SQLite would apply it to a new one."""
    for path in ledger_companions(folder):
        if path.exists() and not (folder / LEDGER_NAME).exists():
            path.rename(path.with_name(f"{path.name}.lost"))


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


@dataclass(frozen=True, slots=True)
class FolderClaim:
    """What to report of a folder that a run takes over."""

    notes: tuple[str, ...] = ()


async def claim_folder(
    ledger: Ledger, paths: BatchPaths, manifest: Path, *, sandbox: bool, begin_anew: bool = False
) -> FolderClaim:
    """Make the folder this ledger's and count the run; both facts stand in the ledger and in the marker.

    Raises `UsageError` when the folder belongs to another ledger, which may know of paid rows.
    """
    marker, runs = read_marker(paths.folder), int(await ledger.meta_get("runs") or 0)
    is_new = await _is_new(ledger)
    if marker is not None and marker.identity != ledger.identity:
        _check_other_owner(paths, manifest, marker, sandbox=sandbox, is_new=is_new)
        marker = None
    if marker is None and is_new and not begin_anew:
        signs = lost_batch_signs(paths, sandbox=sandbox, ledger_is_empty=True)
        if signs:
            raise lost_batch_error(paths, manifest, signs)
    claim = _compare(marker, paths, runs) if marker is not None else FolderClaim()
    # Rows that look unsubmitted may have been submitted from a copy; the marker will not tell of it again.
    if claim.notes:
        await note_uncertain(ledger)
    runs = max(runs, marker.runs if marker is not None else 0) + 1
    # The ledger first: a marker that is ahead of it would make it look like an older copy.
    await ledger.meta_set("runs", str(runs))
    mark = _marker(ledger.identity, paths, manifest, sandbox=sandbox, runs=runs)
    write_marker(paths.folder, mark)
    return claim


def _marker(identity: str, paths: BatchPaths, manifest: Path, *, sandbox: bool, runs: int) -> Marker:
    return Marker(
        identity=identity,
        manifest=str(manifest.absolute()),
        folder=str(paths.folder.absolute()),
        host=socket.gethostname(),
        sandbox=sandbox,
        runs=runs,
        ledger=redact_password(paths.external_ledger),
        batch=paths.batch,
        version=__version__,
    )


async def _is_new(ledger: Ledger) -> bool:
    return not any((await ledger.counts()).values()) and not any((await ledger.counts(removed=True)).values())


def _check_other_owner(
    paths: BatchPaths, manifest: Path, marker: Marker, *, sandbox: bool, is_new: bool
) -> None:
    signs = lost_batch_signs(paths, sandbox=sandbox, ledger_is_empty=True)
    if is_new and signs:
        raise lost_batch_error(paths, manifest, signs)
    if not is_new:
        raise UsageError(
            f"{paths.folder} belongs to the batch that was begun from {marker.manifest} with another ledger: "
            "give this one a folder of its own with --output"
        )


def _compare(marker: Marker, paths: BatchPaths, runs: int) -> FolderClaim:
    """Compare the marker with this place, this host and the ledger's own count of runs."""
    notes = []
    before, here = Path(marker.folder), paths.folder.absolute()
    if before != here and marker.host == socket.gethostname():
        twin = read_marker(before)
        if twin is not None and twin.identity == marker.identity and not before.samefile(here):
            notes.append(f"{here} is a copy of {before}: go on in one of them only")
    elif marker.host != socket.gethostname():
        notes.append(f"the last run of this batch was on {marker.host}: go on on one machine only")
    if runs < marker.runs:
        notes.append(
            f"the ledger knows of {runs} runs and {MARKER_NAME} of {marker.runs}: this is an older copy"
        )
    return FolderClaim(tuple(notes))


async def check_rows_known(store: OutputStore, ledger: Ledger, paths: BatchPaths, manifest: Path) -> None:
    """Raise `UsageError` when the ledger has no rows and the output holds a table of rows that are paid for.

    Replacing that table would destroy what `adopt --from` makes the ledger again from.
    """
    if not await _is_new(ledger):
        return
    bought = 0 if "://" in paths.output else bought_rows_in(Path(paths.output) / CSV_NAME)
    if bought:
        raise lost_batch_error(paths, manifest, [f"{bought} paid rows in {CSV_NAME}"])
    await check_remote_output(store, ledger, paths, manifest, begin_anew=False)


async def check_remote_output(
    store: OutputStore, ledger: Ledger, paths: BatchPaths, manifest: Path, *, begin_anew: bool
) -> None:
    """Apply the rules for a new batch's results.csv to one in an object store.

    Raises `UsageError`; with `begin_anew` the table of the batch without a ledger is kept under another name.
    """
    if "://" not in paths.output or not await _is_new(ledger):
        return
    data = await store.read_bytes(CSV_NAME)
    if data is None:
        return
    table = paths.output_path(CSV_NAME)
    if not is_our_csv(data):
        raise UsageError(f"veobatch did not write {table} and would overwrite it: choose another --output")
    bought = count_bought_rows(data)
    if bought and not begin_anew:
        raise lost_batch_error(paths, manifest, [f"{bought} paid rows in {table}"])
    if bought:
        await store.write_bytes(f"results.before-{_stamp()}.csv", data)
