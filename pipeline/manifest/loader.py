"""A manifest's file -> a checked `Manifest`: bytes to text, the format by its suffix, all problems."""

from __future__ import annotations

import gc
import stat
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.csv_reader import read_csv
from pipeline.manifest.json_reader import read_json, read_jsonl
from pipeline.manifest.problems import Problem, Report, Unreadable, pack
from pipeline.manifest.rows import jobs_of
from pipeline.manifest.sections import read_document
from pipeline.manifest.yaml_reader import read_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.manifest.fields import ModelRules
    from pipeline.manifest.nodes import Node
    from pipeline.model import Job

FILE_BYTES: Final = 512 * 1024 * 1024

_READERS: Final[Mapping[str, Callable[[str, Report], Node]]] = {
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_csv,
}
"""Every other suffix is YAML."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a batch is to do. `run` holds the settings it brings, by their names in `Settings`."""

    path: Path
    jobs: Sequence[Job]
    run: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()
    models: frozenset[str] = frozenset()


def load(path: Path, *, rules: Mapping[str, ModelRules] | None = None) -> Manifest:
    """Read and check the manifest at `path`; `rules` are those of models beyond the built-in one.

    Blocking. Raises `ManifestProblems` with everything that is wrong.
    """
    report = Report(str(path))
    try:
        with _collection_paused():
            read = _READERS.get(path.suffix.lower(), read_yaml)
            root = read(_text(_bytes(path, report), report), report)
            rows, run = read_document(root, report, rules or {})
    except Unreadable:
        raise report.error() from None
    if report.count:
        raise report.error(frozenset(rows.models))
    return Manifest(path, jobs_of(rows.drafts), run, report.warnings, frozenset(rows.models))


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Trees hold no cycles, and looking for some takes a quarter of the time of a bulk manifest."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _bytes(path: Path, report: Report) -> bytes:
    try:
        info = path.stat()
        mode = info.st_mode
        if stat.S_ISDIR(mode):
            return _refuse(report, "this is a directory", "a manifest is a file", "name the file in it")
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            return _refuse(report, "this is no file", "a device or socket has no end", "name a file")
        with path.open("rb") as file:
            # Room is taken for as many bytes as are asked for, so a pipe alone is asked for the most.
            data = file.read(min(info.st_size if stat.S_ISREG(mode) else FILE_BYTES, FILE_BYTES) + 1)
    except FileNotFoundError:
        return _refuse(report, "there is no such file", "", "check the path")
    except (OSError, ValueError) as error:
        return _refuse(report, "the file cannot be read", str(error), "check the path and its permissions")
    if len(data) > FILE_BYTES:
        return _refuse(report, "the file is larger than 512 MB", "it would not fit", "split it")
    return data


def _text(data: bytes, report: Report) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        _refuse(report, "the file is UTF-16 or UTF-32", "manifests are UTF-8", "save it as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\x00" in data:
        at = data.index(b"\x00")
        place = pack(data.count(b"\n", 0, at) + 1, at - data.rfind(b"\n", 0, at))
        _refuse(report, "the file holds a NUL byte", "it is no text", "save it as UTF-8 text", place)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8")) + 1
        byte = f"the byte 0x{data[error.start]:02x}"
        place = pack(before.count(b"\n") + 1, column)
        _refuse(report, "the file is not UTF-8", f"{byte} stands here", "save it as UTF-8", place)
        raise


def _refuse(report: Report, what: str, why: str, instead: str, at: int = pack(1, 1)) -> bytes:
    report.problem(at, what, why, instead)
    raise Unreadable
