"""Problems and errors as people and editors see them: carets, one line each in a pipe, JSON, annotations."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.errors import VeobatchError
    from pipeline.manifest import ManifestProblems, Problem

_MAX_SOURCE_CHARS: Final = 100
MAX_CHARS: Final = 4_000
_CARET_CONTEXT_CHARS: Final = 40
"""How much of a long line is shown before the caret."""


def use_colour(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal whose user has not asked for plain text (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def format_problems(problems: Sequence[Problem], count: int, *, colour: bool, label: str = "error") -> str:
    """Return all problems as text of at most 4,000 characters, ending in how many were left out."""
    from pipeline.manifest.problems import join_limited

    if not colour:
        lines = [f"{problem.place}: {label}: {problem.text}" for problem in problems]
        return join_limited(lines, count, MAX_CHARS)
    sources = _source_lines(problems)
    return _join_up_to_limit(
        [_format_in_colour(problem, sources.get(problem.line, ""), label) for problem in problems], count
    )


def error_text(error: VeobatchError) -> str:
    """Return an error's message; a manifest's problems just as `validate` shows them."""
    from pipeline.manifest import ManifestProblems

    return manifest_problems_text(error) if isinstance(error, ManifestProblems) else f"veobatch: {error}"


def manifest_problems_text(found: ManifestProblems) -> str:
    """Return a manifest's problems, its warnings and a closing line; GitHub Actions gets its annotations."""
    problems = format_problems(found.problems, found.count, colour=use_colour(sys.stderr))
    warnings = warnings_text(found.warnings, MAX_CHARS - len(problems))
    _annotate_on_github(found)
    return "\n".join(part for part in (problems, warnings, _closing_line(found)) if part)


def warnings_text(warnings: Sequence[Problem], room_chars: int = MAX_CHARS) -> str:
    """Return warnings as text; nothing when the problems before them have left too little room for it."""
    text = format_problems(warnings, len(warnings), colour=use_colour(sys.stderr), label="warning")
    return text if len(text) <= room_chars else ""


def _closing_line(found: ManifestProblems) -> str:
    problems = f"{found.count:,} problem{'' if found.count == 1 else 's'}"
    rows = f" in {found.rows:,} row{'' if found.rows == 1 else 's'}" if found.rows else ""
    return f"{found.problems[0].file}: {problems}{rows}; nothing was submitted"


def _annotate_on_github(found: ManifestProblems) -> None:
    """On GitHub Actions, mark every problem at its line."""
    from pipeline.cli.reporting.ci import on_github, problem_lines

    if on_github(os.environ):
        for line in problem_lines(found.problems, found.count):
            click.echo(line, err=True)


def problems_json(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """Return problems as objects that an editor can place."""
    return [
        {
            "file": problem.file,
            "line": problem.line,
            "column": problem.column,
            "what": problem.what,
            "why": problem.why,
            "instead": problem.instead,
            "message": str(problem),
        }
        for problem in problems
    ]


def _join_up_to_limit(blocks: list[str], count: int) -> str:
    """Join whole blocks while they fit: half a colour code would colour the rest of the terminal."""
    shown: list[str] = []
    used = len(f"... and {count} more")
    for block in blocks:
        used += len(block) + 1
        if used > MAX_CHARS:
            break
        shown.append(block)
    left = count - len(shown)
    return "\n".join([*shown, f"... and {left} more"] if left else shown)


def _source_lines(problems: Iterable[Problem]) -> dict[int, str]:
    """Return the lines that problems point at; none when the file cannot be read as text."""
    wanted = {problem.line: problem.file for problem in problems}
    lines: dict[int, str] = {}
    try:
        for file in set(wanted.values()):
            if not Path(file).is_file():
                continue
            with open(file, encoding="utf-8-sig", newline="\n") as stream:  # noqa: PTH123 - a Problem holds text
                for number, line in enumerate(stream, 1):
                    if number in wanted:
                        lines[number] = line.rstrip("\r\n")
    except (OSError, ValueError):
        return {}
    return lines


def _format_in_colour(problem: Problem, source: str, label: str) -> str:
    from pipeline.manifest.problems import escape_unprintable

    location = f"{escape_unprintable(problem.file)}:{problem.line}:{problem.column}:"
    colour = "red" if label == "error" else "yellow"
    head = _wrapped(f"{location} {label}: {problem.what}" + (f": {problem.why}" if problem.why else ""))
    # Coloured after it is broken into lines: a colour's code takes no room on the screen.
    head = head.replace(location, click.style(location, bold=True), 1)
    parts = [head.replace(f" {label}:", f" {click.style(f'{label}:', fg=colour, bold=True)}", 1)]
    if source.strip():
        cut = max(0, problem.column - 1 - _CARET_CONTEXT_CHARS) if len(source) > _MAX_SOURCE_CHARS else 0
        shown = escape_unprintable(source[cut : cut + _MAX_SOURCE_CHARS].replace("\t", " "))
        gutter = f"{problem.line:>5} | "
        caret = " " * (len(gutter) + problem.column - 1 - cut) + "^"
        parts += [click.style(gutter, fg="blue") + shown, click.style(caret, fg=colour, bold=True)]
    if problem.instead:
        parts.append(click.style(_wrapped(f"      = {problem.instead}", "        "), fg="green"))
    return "\n".join(parts)


def _wrapped(text: str, indent: str = "    ") -> str:
    """Break a long line between words, never inside one, at the terminal's width."""
    width = max(40, shutil.get_terminal_size().columns)
    return textwrap.fill(
        text,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        initial_indent="",
    )
