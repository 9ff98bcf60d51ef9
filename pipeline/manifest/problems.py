"""The problems of a manifest as values: where, what, why, what instead. Knows no format and no file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pipeline.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_MESSAGE_CHARS: Final = 4_000
"""A message longer than this is scrolled past, not read."""

MAX_PROBLEMS: Final = 1_000
"""How many problems are looked for. A file with more has the same problem throughout."""

ProblemText: TypeAlias = tuple[str, str, str]
"""What, why, what instead."""

_LINE_BITS: Final = 32

VIRTUAL_COLUMN: Final = 1 << 31
"""Columns from here on count the members of a line: the real position is found on demand."""


def pack_location(line: int, column: int) -> int:
    """Pack a line and a column (from 1) into one int: a bulk manifest holds a million of them."""
    return line << _LINE_BITS | column


def unpack_location(location: int) -> tuple[int, int]:
    """Return the line and column that `pack_location` was given."""
    return location >> _LINE_BITS, location & ((1 << _LINE_BITS) - 1)


@dataclass(frozen=True, slots=True)
class Problem:
    """One error or warning and its position, counted from 1."""

    file: str
    line: int
    column: int
    what: str
    why: str = ""
    instead: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"

    @property
    def place(self) -> str:
        """`file:line:column`, which editors jump to."""
        return f"{escape_unprintable(self.file)}:{self.line}:{self.column}"

    @property
    def text(self) -> str:
        """What is wrong, why, and what to do instead, in one line."""
        what = f"{self.what}: {self.why}" if self.why else self.what
        return f"{what}; {self.instead}" if self.instead else what


class ManifestProblems(ManifestError):
    """The manifest is wrong. `problems` and `warnings` hold what was found, in the file's order.

    `rows` is how many rows have one. `models` are the models that the rows named as far as they could be
    read, so that a caller may fetch their rules and check again.
    """

    def __init__(
        self,
        problems: tuple[Problem, ...],
        count: int | None = None,
        models: frozenset[str] = frozenset(),
        rows: int = 0,
        warnings: tuple[Problem, ...] = (),
    ) -> None:
        self.rows, self.warnings = rows, warnings
        self.problems = problems
        self.count = len(problems) if count is None else count
        self.models = models
        super().__init__(join_limited([str(problem) for problem in problems], self.count))


class ParseAborted(Exception):
    """Nothing more can or should be read; the report says why."""


class ProblemReport:
    """Collects the problems and warnings of one file; the same message at the same position counts once.

    `partial` says that the text could not be read to its end, so that what is missing may not be.
    `resolve_location` turns a virtual position into a real one, for formats that find them on demand.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.problem_count = 0
        self.reported_count = 0
        self.warned_count = 0
        self.bad_rows = 0
        self.partial = False
        self.resolve_location: Callable[[int], int] = int
        self._problems: dict[tuple[int, str], Problem] = {}
        self._warnings: dict[tuple[int, str], Problem] = {}

    def add_problem(self, location: int, what: str, why: str = "", instead: str = "") -> None:
        """Add a problem; raises `ParseAborted` when there are so many that reading on helps no one."""
        self.reported_count += 1
        if (location, what) in self._problems:
            return
        if self.problem_count >= MAX_PROBLEMS:
            raise ParseAborted
        self.problem_count += 1
        self._problems[location, what] = Problem(
            self.file, *unpack_location(self.resolve_location(location)), what, why, instead
        )

    def add_warning(self, location: int, what: str, why: str = "", instead: str = "") -> None:
        self.warned_count += 1
        if len(self._warnings) < MAX_PROBLEMS and (location, what) not in self._warnings:
            self._warnings[location, what] = Problem(
                self.file, *unpack_location(self.resolve_location(location)), what, why, instead
            )

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return _sorted_by_location(self._warnings)

    def to_exception(self, models: frozenset[str] = frozenset()) -> ManifestProblems:
        """Return everything found as one exception, in the file's order."""
        return ManifestProblems(
            _sorted_by_location(self._problems), self.problem_count, models, self.bad_rows, self.warnings
        )


def _sorted_by_location(problems: dict[tuple[int, str], Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems.values(), key=lambda problem: (problem.line, problem.column)))


def join_limited(lines: list[str], count: int, limit: int = MAX_MESSAGE_CHARS) -> str:
    """Join `lines`, at most `limit` characters, ending in how many of `count` were left out."""
    tail_room = len(f"\n... and {count} more")
    kept: list[str] = []
    used_chars = 0
    for line in lines:
        room = limit - tail_room - used_chars
        if kept and len(line) + 1 > room:
            break
        kept.append(line if len(line) <= room else line[: room - 3] + "...")
        used_chars += len(kept[-1]) + 1
    omitted = count - len(kept)
    return "\n".join([*kept, f"... and {omitted} more"] if omitted else kept)


def escape_unprintable(text: str) -> str:
    """Return `text` with whatever could disturb a terminal written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def format_value(value: Any, limit: int = 60) -> str:
    """Return `value` as its author would write it, on one line, short enough for a message."""
    if isinstance(value, str):
        shortened = value[:limit] + ("..." if len(value) > limit else "")
        return f'"{escape_unprintable(shortened)}"'
    if value is None or isinstance(value, bool | int | float):
        text = json.dumps(value)
        return text[:limit]
    return "a list" if isinstance(value, list) else "a mapping"


def format_bare(text: str, limit: int = 60) -> str:
    """Return unquoted `text` on one line, short enough for a message."""
    return escape_unprintable(text[:limit]) + ("..." if len(text) > limit else "")
