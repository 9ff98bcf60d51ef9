"""From a file to a checked `Manifest`: bytes to text, the format by its suffix, all problems at once."""

from __future__ import annotations

import json
import stat
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.gc_pause import gc_paused
from pipeline.manifest.csv_reader import read_csv
from pipeline.manifest.expand import matrix_rows
from pipeline.manifest.fields import BUILT_IN_MODEL
from pipeline.manifest.job_builder import JobBuilder
from pipeline.manifest.jobs import check_take_ids, with_extra_takes
from pipeline.manifest.json_reader import read_json, read_jsonl
from pipeline.manifest.local_files import NAME_A_PICTURE, LocalFiles
from pipeline.manifest.nodes import SequenceNode
from pipeline.manifest.problems import (
    ManifestProblems,
    ParseAborted,
    Problem,
    ProblemReport,
    format_value,
    pack_location,
)
from pipeline.manifest.sections import NO_SECTIONS, read_sections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pipeline.manifest.fields import ModelRules
    from pipeline.manifest.local_files import LocalFile
    from pipeline.manifest.nodes import Node
    from pipeline.manifest.sections import Sections
    from pipeline.model import Job

MAX_FILE_BYTES: Final = 512 * 1024 * 1024

_READERS: Final[Mapping[str, Callable[[str, ProblemReport], Node]]] = {
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
    files: LocalFiles = field(default_factory=lambda: LocalFiles(Path()))

    def with_takes(self, extra: Mapping[str, Sequence[int]]) -> Manifest:
        """Return the manifest with further takes, by the key of the row's first."""
        return replace(self, jobs=with_extra_takes(self.jobs, extra)) if extra else self


def read_once(path: Path) -> bytes | None:
    """Return the bytes of a manifest that can be read only once (a pipe), None for a file.

    Raises `ManifestProblems` when it cannot be read.
    """
    report = ProblemReport(str(path))
    try:
        if path.is_file() or not path.exists():
            return None
        return _read_bytes(path, report)
    except ParseAborted:
        raise report.to_exception() from None


@dataclass(frozen=True, slots=True)
class ParsedManifest:
    """What a manifest is without the network: it holds, or has problems.

    `other_models` have their rules in the catalogue; `load` reads it once more, and takes those by name.
    """

    manifest: Manifest | None
    problems: ManifestProblems | None
    other_models: frozenset[str]
    load: Callable[..., Manifest]

    def checked(self, rules: Mapping[str, ModelRules] | None = None) -> Manifest:
        """Return the manifest, checked by the `rules` of its other models; raises its problems. Blocking."""
        if self.other_models and rules is not None:
            return self.load(rules=rules)
        if self.problems is not None:
            raise self.problems
        return self.manifest or self.load()

    def without_manifest(self) -> ParsedManifest:
        """Return where it came from alone; `again` reads it once more."""
        return replace(self, manifest=None)

    def again(self) -> ParsedManifest:
        """Return the manifest as it stands now, read again when it was dropped. Blocking."""
        if self.manifest is not None or self.problems is not None:
            return self
        return _parsed(self.load)


def parse(
    path: Path,
    model: str | None = None,
    takes: int | None = None,
    data: bytes | None = None,
    check_file: Callable[[LocalFile], str] | None = None,
) -> ParsedManifest:
    """Load the manifest at `path` against the built-in rules, as `load` does. A pipe is read here, once."""
    try:
        data = read_once(path) if data is None else data
    except ManifestProblems as found:
        return ParsedManifest(None, found, frozenset(), partial(load, path))
    return _parsed(partial(load, path, data=data, model=model, takes=takes, check_file=check_file))


def _parsed(load: Callable[..., Manifest]) -> ParsedManifest:
    try:
        manifest = load()
    except ManifestProblems as found:
        return ParsedManifest(None, found, found.models - {BUILT_IN_MODEL}, load)
    return ParsedManifest(manifest, None, manifest.models - {BUILT_IN_MODEL}, load)


def load(
    path: Path,
    *,
    rules: Mapping[str, ModelRules] | None = None,
    data: bytes | None = None,
    model: str | None = None,
    takes: int | None = None,
    check_file: Callable[[LocalFile], str] | None = None,
) -> Manifest:
    """Read and check the manifest at `path`; `rules` are those of models beyond the built-in one.

    `data` is what `read_once` has read. `model` replaces the manifest's default model (`defaults.model`, else
    the built-in one) in every row that has that one, also where the row names it itself. `takes` replaces
    every row's number of takes. `check_file` returns what is wrong with a file, so that a manifest that has
    other problems is not read a second time for it. Blocking.
    Raises `ManifestProblems` with everything that is wrong.
    """
    report = ProblemReport(str(path))
    try:
        with gc_paused():
            root = _read_root(path, data, report)
            if isinstance(root, SequenceNode):
                sections = NO_SECTIONS._replace(jobs=root)
            else:
                sections = read_sections(root, report)
            builder = _read_rows(sections, report, rules or {}, model, takes, path.parent)
    except ParseAborted:
        raise report.to_exception() from None
    if report.problem_count:
        if check_file is not None:
            with suppress(ParseAborted):  # there are so many that further ones help no one
                _check_files(builder.files.files.values(), check_file, report)
        raise report.to_exception(builder.models)
    return Manifest(path, builder.jobs(), sections.run, report.warnings, builder.models, builder.files)


def _read_rows(
    sections: Sections,
    report: ProblemReport,
    rules: Mapping[str, ModelRules],
    model: str | None,
    takes: int | None,
    folder: Path,
) -> JobBuilder:
    """Check every row, dropping its nodes as soon as it is checked."""
    builder = JobBuilder(report, rules, sections.defaults, sections.variables, model, takes, folder)
    if sections.jobs is not None:
        is_empty = True
        for node, location in sections.jobs.drain():
            builder.add(node, location)
            is_empty = False
        if is_empty and not report.problem_count:
            report.add_problem(sections.jobs.location, "there are no jobs", *sections.jobs.advice)
    if sections.matrix is not None:
        for fields, location in matrix_rows(sections.matrix, report):
            builder.add_fields(fields, location)
    if not builder.drafts and not report.problem_count:
        report.add_problem(
            sections.location, "there are no jobs", "nothing is left to do", "list some under jobs:"
        )
    check_take_ids(builder.drafts, report)
    return builder


def _check_files(
    files: Iterable[LocalFile], check_file: Callable[[LocalFile], str], report: ProblemReport
) -> None:
    for file in files:
        if why := check_file(file):
            location, what = (
                pack_location(file.line, file.column),
                f"image {format_value(file.written[:200])}",
            )
            report.add_problem(location, what, why, NAME_A_PICTURE)
            report.bad_rows += 1


def _read_yaml(text: str, report: ProblemReport) -> Node:
    from pipeline.manifest.yaml_reader import read_yaml  # PyYAML is not needed for JSON and CSV

    return read_yaml(text, report)


def _reader_for(path: Path, text: str) -> Callable[[str, ProblemReport], Node]:
    """Choose by the suffix; JSON Lines under a name of YAML's are recognised by their first two lines."""
    read = _READERS.get(path.suffix.lower(), _read_yaml)
    if read is _read_yaml and text.lstrip().startswith("{"):
        lines = [line for line in text.lstrip().split("\n", 3)[:3] if line.strip()]
        if len(lines) > 1 and all(_is_json_object(line) for line in lines[:2]):
            return read_jsonl
    return read


def _is_json_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _read_root(path: Path, data: bytes | None, report: ProblemReport) -> Node:
    text = _decode(_read_bytes(path, report) if data is None else data, report)
    return _reader_for(path, text)(text, report)


def _read_bytes(path: Path, report: ProblemReport) -> bytes:
    try:
        info = path.stat()
        mode = info.st_mode
        if stat.S_ISDIR(mode):
            return _abort(report, "this is a directory", "a manifest is a file", "name the file in it")
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            return _abort(report, "this is no file", "a device or socket has no end", "name a file")
        with path.open("rb") as file:
            # read(n) allocates n bytes, so only a pipe is asked for the maximum.
            data = file.read(min(info.st_size if stat.S_ISREG(mode) else MAX_FILE_BYTES, MAX_FILE_BYTES) + 1)
    except FileNotFoundError:
        return _abort(report, "there is no such file", "", "check the path")
    except (OSError, ValueError) as error:
        return _abort(report, "the file cannot be read", str(error), "check the path and its permissions")
    if len(data) > MAX_FILE_BYTES:
        return _abort(report, "the file is larger than 512 MB", "it would not fit", "split it")
    return data


def _decode(data: bytes, report: ProblemReport) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        _abort(report, "the file is UTF-16 or UTF-32", "manifests are UTF-8", "save it as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\x00" in data:
        nul_offset = data.index(b"\x00")
        location = pack_location(
            data.count(b"\n", 0, nul_offset) + 1, nul_offset - data.rfind(b"\n", 0, nul_offset)
        )
        _abort(report, "the file holds a NUL byte", "it is no text", "save it as UTF-8 text", location)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8")) + 1
        byte = f"the byte 0x{data[error.start]:02x}"
        location = pack_location(before.count(b"\n") + 1, column)
        _abort(report, "the file is not UTF-8", f"{byte} stands here", "save it as UTF-8", location)
        raise


def _abort(
    report: ProblemReport, what: str, why: str, instead: str, location: int = pack_location(1, 1)
) -> bytes:
    report.add_problem(location, what, why, instead)
    raise ParseAborted
