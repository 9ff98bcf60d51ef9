"""What a CI service gets on GitHub: annotations, log groups, the step's summary and its outputs.

Owns the formats and their escaping. Knows the environment variables that GitHub documents, and no engine:
everything is made of records.
"""

from __future__ import annotations

import html
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TextIO

from pipeline.cli.reporting.summary_text import failure_text
from pipeline.model import Record, State, render_duration_s
from pipeline.results.csv_rows import STATUSES, status, visible_records
from pipeline.results.failures import failure_groups
from pipeline.results.overview import counted, figures, format_duration, format_usd, headline
from pipeline.results.totals import summarize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.ledger.totals import Totals
    from pipeline.manifest import Problem
    from pipeline.results.next_step import NextStep

AnnotationLevel = Literal["error", "warning", "notice"]

MAX_ANNOTATIONS: Final = 10
"""GitHub keeps ten errors and ten warnings of a step and silently drops the rest."""

STEP_SUMMARY: Final = "GITHUB_STEP_SUMMARY"
STEP_OUTPUTS: Final = "GITHUB_OUTPUT"
"""The variables that name the files of a step's summary and of its outputs."""

_SUMMARY_ROWS: Final = 100
_MAX_TEXT_CHARS: Final = 2000
# An underscore inside a word is no emphasis, so that codes stay as people search for them.
_MARKDOWN = re.compile(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w))")


def on_github(environ: Mapping[str, str]) -> bool:
    """Return whether this runs in a step of GitHub Actions."""
    return environ.get("GITHUB_ACTIONS") == "true"


def annotation(
    level: AnnotationLevel, message: str, *, file: str = "", line: int = 0, column: int = 0, title: str = ""
) -> str:
    """Return one workflow command that marks `file` at `line` (from 1; 0 is unknown)."""
    location = {"file": file, "line": line, "col": column, "title": title}
    properties = ",".join(
        f"{name}={_escape_property(str(value))}" for name, value in location.items() if value
    )
    return f"::{level}{' ' if properties else ''}{properties}::{_escape_message(message)}"


def annotation_lines(
    records: Sequence[Record], manifest: str, *, cause: str = "", next_step: NextStep | None = None
) -> list[str]:
    """Return the commands for how a run ended: its `cause` first, when it did not succeed, with what to do
    next; then failed rows and rows in doubt, each at its line of `manifest`.

    At most `MAX_ANNOTATIONS` of a kind; the last one then says how many more there are.
    """
    rows = [row for row in visible_records(records) if row.position >= 0]
    failed = [row for row in rows if row.state is State.FAILED]
    in_doubt = [row for row in rows if status(row) is State.IN_DOUBT]
    first = [end_annotation(cause, next_step, manifest)] if cause else []
    return [
        *first,
        *_row_annotations("error", failed, manifest, MAX_ANNOTATIONS - len(first)),
        *_row_annotations("warning", in_doubt, manifest, MAX_ANNOTATIONS),
    ]


def end_annotation(cause: str, next_step: NextStep | None, manifest: str) -> str:
    """Return the command that says why a run did not succeed, and how to continue."""
    text = f"{cause}\nNext: {next_step}" if next_step is not None and next_step.command else cause
    return annotation("error", text, file=manifest, title="veobatch")


def problem_lines(problems: Sequence[Problem], count: int) -> list[str]:
    """Return the commands that mark a manifest's problems at their places; at most `MAX_ANNOTATIONS`."""
    lines = [
        annotation(
            "error",
            ", ".join(part for part in (problem.what, problem.why, problem.instead) if part),
            file=problem.file,
            line=problem.line,
            column=problem.column,
            title="veobatch",
        )
        for problem in problems[:MAX_ANNOTATIONS]
    ]
    more = count - len(lines)
    return (
        [*lines, annotation("error", f"and {counted(more, 'more problem')}", title="veobatch")]
        if more > 0
        else lines
    )


def repository_path(manifest: Path, environ: Mapping[str, str]) -> str:
    """Return the manifest's path from the root of the checked-out repository, as annotations need it."""
    root = environ.get("GITHUB_WORKSPACE", "")
    whole = manifest.resolve()
    if root and whole.is_relative_to(Path(root).resolve()):
        return whole.relative_to(Path(root).resolve()).as_posix()
    return manifest.as_posix()


@contextmanager
def log_group(title: str, stream: TextIO) -> Iterator[None]:
    """Fold what is printed inside into one line of the log."""
    print(f"::group::{_escape_message(title)}", file=stream, flush=True)
    try:
        yield
    finally:
        print("::endgroup::", file=stream, flush=True)


def step_summary(
    records: Sequence[Record],
    *,
    title: str,
    cause: str = "",
    next_step: NextStep | None = None,
    sandbox: bool = False,
    money: Totals | None = None,
) -> str:
    """Return the batch as Markdown: the headline, the cause of its end, counts, figures and failures."""
    rows = visible_records(records)
    totals = summarize(rows, sandbox=sandbox, money=money)
    standing = " ".join(part for part in headline(totals) if part)
    counts = [(word, totals.counts.get(word, 0)) for word in STATUSES if totals.counts.get(word, 0)]
    sections = [
        f"## {markdown(title)}{' (sandbox)' if sandbox else ''}",
        f"**{markdown(cause)}**" if cause and cause != standing else "",
        markdown(standing),
        _table(
            ("Status", "Rows"), [(markdown(word.value.replace("_", " ")), f"{n:,}") for word, n in counts]
        ),
        _table(
            ("", "", ""),
            [
                (f"**{markdown(f.value)}**", markdown(f.label), markdown(f.detail))
                for f in figures(totals, rows)
            ],
        ),
        _failures_section(rows),
        _videos_section(rows),
        _next_section(next_step),
    ]
    return "\n\n".join(block for block in sections if block) + "\n"


def early_end_summary(title: str, cause: str) -> str:
    """Return the step summary of a run that ended before it submitted anything."""
    return f"## {markdown(title)}\n\n**{markdown(cause)}**\n\nNothing was submitted by this run.\n"


def write_step_summary(text: str, environ: Mapping[str, str]) -> bool:
    """Append `text` to the step's summary; return whether there is one and it was written."""
    return _append(environ.get(STEP_SUMMARY, ""), text)


def write_step_outputs(summary: Mapping[str, object], environ: Mapping[str, str]) -> bool:
    """Write the step's outputs from the `--json` object; return whether there is a place and it was written.

    Names have dashes for underscores, counts are `done`, `failed`, ...; an absent value is empty.
    """
    counts = summary.get("counts")
    values = {**(counts if isinstance(counts, dict) else {}), **summary}
    lines = [
        f"{name.replace('_', '-')}={_output_value(value)}\n"
        for name, value in values.items()
        if not isinstance(value, dict | list)
    ]
    return _append(environ.get(STEP_OUTPUTS, ""), "".join(lines))


def _output_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else " ".join(str(value).split())


def _append(path: str, text: str) -> bool:
    if not path:
        return False
    try:
        with Path(path).open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError:
        return False
    return True


def markdown(text: str) -> str:
    """Return `text` as Markdown that shows it as it is, on one line, also in a table's cell."""
    plain = " ".join(text.split())
    escaped = _MARKDOWN.sub(r"\\\1", html.escape(plain, quote=False))
    return escaped if len(escaped) <= _MAX_TEXT_CHARS else f"{escaped[:_MAX_TEXT_CHARS].rstrip(chr(92))}…"


def _row_annotations(
    level: AnnotationLevel, rows: Sequence[Record], manifest: str, limit: int
) -> Iterator[str]:
    shown = rows if len(rows) <= limit else rows[: limit - 1]
    for row in shown:
        message = failure_text(row) if level == "error" else "submitted, but no response came: it may be paid"
        yield annotation(level, f"{row.id}: {message}", file=manifest, line=row.line, title="veobatch")
    if len(rows) > len(shown):
        yield annotation(level, f"and {len(rows) - len(shown)} more, see results.csv", title="veobatch")


def _failures_section(rows: Sequence[Record]) -> str:
    groups = failure_groups(rows)
    if not groups:
        return ""
    lines = []
    for failure_group in groups[:_SUMMARY_ROWS]:
        places = ", ".join(
            f"{row.id} (line {row.line})" if row.line else row.id for row in failure_group.rows[:5]
        )
        more = f" and {failure_group.count - 5:,} more" if failure_group.count > 5 else ""
        lines.append(
            (
                f"{failure_group.count:,}",
                markdown(failure_group.code),
                markdown(failure_group.message),
                markdown(failure_group.remedy),
                markdown(places + more),
            )
        )
    rest = len(groups) - _SUMMARY_ROWS
    tail = f"\n\nand {counted(rest, 'more reason')} in results.csv" if rest > 0 else ""
    return f"### What went wrong\n\n{_table(('Rows', 'Code', 'Reason', 'What helps', 'Where'), lines)}{tail}"


def _next_section(next_step: NextStep | None) -> str:
    """Return the command in a code span and its hint beside it, so that the span can be copied whole."""
    if next_step is None or not next_step.command:
        return ""
    hint = f" ({markdown(next_step.hint)})" if next_step.hint else ""
    return f"Next: {_code_span(next_step.command)}{hint}"


def _videos_section(rows: Sequence[Record]) -> str:
    done = [row for row in rows if row.state is State.DONE]
    if not done:
        return ""
    lines = [
        (
            markdown(row.id),
            markdown(row.prompt if len(row.prompt) <= 120 else f"{row.prompt[:119]}…"),
            format_usd(row.usd_spent) if row.usd_spent is not None else "",
            format_duration(taken) if (taken := render_duration_s(row)) is not None else "",
        )
        for row in done[:_SUMMARY_ROWS]
    ]
    more = f"\n\nand {len(done) - _SUMMARY_ROWS:,} more" if len(done) > _SUMMARY_ROWS else ""
    table = _table(("Id", "Prompt", "Cost", "Rendering"), lines)
    return f"<details><summary>{counted(len(done), 'video')}</summary>\n\n{table}{more}\n\n</details>"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def _code_span(text: str) -> str:
    """Return a code span; its fence is longer than any run of backticks inside."""
    plain = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    pad = " " if "`" in plain else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def _escape_message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_message(text).replace(":", "%3A").replace(",", "%2C")
