"""Which files of an output folder veobatch wrote: its marker, and what the first bytes of the others show.

Only reads. A file under one of our names that is not recognised belongs to the user.
"""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from pipeline.batch.paths import LEDGER_NAME
from pipeline.ledger.lock import HOLDER_FILE_NAME, LOCK_FILE_NAME
from pipeline.results import CSV_NAME, LOG_NAME, PAGE_HEAD_BYTES, REPORT_NAME, is_our_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pipeline.batch.paths import BatchPaths

MARKER_NAME: Final = ".veobatch.json"
JOURNAL_NAME: Final = "sandbox.jsonl"
TEMPORARY_SUFFIX: Final = ".veobatch-part"
MEDIA_FOLDERS: Final = ("videos", "posters")
_CSV_START: Final = b"id,status,generation_id,video_path,image_url,prompt,"
_SQLITE_MAGIC: Final = b"SQLite format 3\0"
_LEDGER_APPLICATION_ID: Final = b"veob"
_MAX_CELL_CHARS: Final = 2**31 - 1
"""`csv` itself gives up beyond 131,072, which an error message of the vendor's may have."""

_BOUGHT: Final = frozenset({"done", "ready", "generating", "in_doubt"})


@dataclass(frozen=True, slots=True)
class Marker:
    """What `.veobatch.json` records of the batch that owns the folder; `ledger` is empty for its own file."""

    identity: str
    manifest: str
    folder: str
    host: str
    sandbox: bool
    runs: int
    ledger: str = ""
    batch: str = ""
    version: str = ""


def read_marker(folder: Path) -> Marker | None:
    """Return the folder's marker, or None when there is none that veobatch wrote."""
    path = folder / MARKER_NAME
    if not path.is_file():  # a pipe of that name would be waited for without end
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Marker)}
        return Marker(**{name: value for name, value in values.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def write_marker(folder: Path, marker: Marker) -> None:
    """Replace the folder's marker atomically. Raises `OSError`."""
    from pipeline.storage.files import replace_file

    data = (json.dumps(asdict(marker), indent=2) + "\n").encode()
    replace_file(folder / MARKER_NAME, data, durable=False)


def foreign_files(paths: BatchPaths) -> list[Path]:
    """Return the files under our names that veobatch did not write, in the folder and the local output."""
    folder = paths.folder
    has_ledger = (folder / LEDGER_NAME).exists() or bool(paths.external_ledger)
    checks: list[tuple[Path, Callable[[Path], bool]]] = [
        (folder / MARKER_NAME, lambda path: read_marker(path.parent) is not None),
        (folder / LOCK_FILE_NAME, lambda path: path.stat().st_size == 0),
        (folder / HOLDER_FILE_NAME, _is_our_holder),
        (folder / JOURNAL_NAME, lambda path: b'"veobatch sandbox"' in _head(path, 200)),
    ]
    checks += [(folder / name, _is_our_log) for name in (LOG_NAME, *(f"{LOG_NAME}.{n}" for n in (1, 2, 3)))]
    output = folder if "://" in paths.output else Path(paths.output)
    checks += [
        (output / CSV_NAME, lambda path: is_our_csv(_head(path, 200))),
        (output / REPORT_NAME, _is_our_report),
    ]
    foreign = [
        path
        for path, is_ours in checks
        if os.path.lexists(path)
        and not path.is_dir()
        and not (_is_empty(path) and has_ledger)
        and not _judged(is_ours, path)
    ]
    batch_of_ours = is_marked(folder) or (output / CSV_NAME).exists()
    if not foreign and not batch_of_ours and not has_ledger:
        foreign += media_files(output) + [path for path in ledger_companions(folder) if path.exists()]
    ledger = folder / LEDGER_NAME
    if (
        ledger.exists()
        and not _judged(_is_our_ledger, ledger)
        and (not batch_of_ours or _is_database(ledger))
    ):
        foreign.append(ledger)
    return foreign


def is_marked(folder: Path) -> bool:
    """Return whether a marker or a sandbox's journal says that a batch of ours lives in the folder."""
    return read_marker(folder) is not None or (folder / JOURNAL_NAME).exists()


def table_rows(table: bytes | TextIO) -> Iterator[dict[str, Any]]:
    """Yield the rows of a results.csv by its columns' names; a file was opened with `newline=""`.

    A cell may hold any line end. Cells beyond the header's are a list under None, missing ones None.
    """
    # Not `splitlines`, which ends lines where `csv` does not quote: at U+2028, U+0085, a form feed, ...
    text = (
        io.StringIO(table.decode("utf-8-sig", "replace"), newline="") if isinstance(table, bytes) else table
    )
    before = csv.field_size_limit(_MAX_CELL_CHARS)
    try:
        yield from csv.DictReader(text)
    finally:
        csv.field_size_limit(before)


def is_bought(row: Mapping[str, Any]) -> bool:
    """Return whether a row of a results.csv was submitted."""
    return bool(row.get("generation_id")) or row.get("status") in _BOUGHT


def count_bought_rows(table: bytes | TextIO) -> int:
    """Return how many rows of a results.csv, as for `table_rows`, were submitted."""
    return sum(map(is_bought, table_rows(table)))


def bought_rows_in(table: Path) -> int:
    """Return how many rows of the results.csv at `table` were submitted; 0 when it cannot be read."""
    try:
        with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            return count_bought_rows(file)
    except (OSError, csv.Error):
        return 0


def ledger_companions(folder: Path) -> list[Path]:
    return [folder / f"{LEDGER_NAME}{suffix}" for suffix in ("-wal", "-shm", "-journal")]


def media_files(output: Path) -> list[Path]:
    folders = [output / name for name in MEDIA_FOLDERS]
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]


def _judged(is_ours: Callable[[Path], bool], path: Path) -> bool:
    try:
        return path.is_file() and is_ours(path)
    except OSError:
        return False


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _is_empty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0


def is_our_csv(data: bytes) -> bool:
    """Return whether a table begins as every version's results.csv does."""
    return data.removeprefix(b"\xef\xbb\xbf").startswith(_CSV_START)


def _is_our_report(path: Path) -> bool:
    return is_our_page(_head(path, PAGE_HEAD_BYTES))


def _is_our_log(path: Path) -> bool:
    with path.open("rb") as file:
        line = file.readline(1_000_000)
    try:
        return "topic" in json.loads(line)
    except (ValueError, TypeError):
        return False


def _is_our_holder(path: Path) -> bool:
    try:
        return "pid" in json.loads(path.read_bytes())
    except (ValueError, TypeError):
        return False


def _is_database(path: Path) -> bool:
    return _head(path, 16) == _SQLITE_MAGIC


def _is_our_ledger(path: Path) -> bool:
    """Read the header only (application id at offset 68): SQLite may change a database that it opens."""
    head = _head(path, 72)
    return head.startswith(_SQLITE_MAGIC) and head[68:72] == _LEDGER_APPLICATION_ID


def log_shows_submissions(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return any(b'"correlation_id"' in line for line in file)
    except OSError:
        return False
