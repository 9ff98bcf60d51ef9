"""What a CI service is told: GitHub's step summary, annotations and log groups; JUnit XML elsewhere.

Owns the formats and their escaping. Knows the environment's variables that GitHub documents, and no
engine: everything is made of records.
"""

from __future__ import annotations

import html
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TextIO

from pipeline.cli.summary import failure_text
from pipeline.errors import UsageError
from pipeline.model import Record, State, render_duration_s
from pipeline.results.csv import STATUSES, status, summarize, visible_records
from pipeline.results.report.overview import failure_groups, figures, format_duration, format_usd, headline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from junitparser import TestCase

    from pipeline.manifest import Problem

AnnotationLevel = Literal["error", "warning", "notice"]

MAX_ANNOTATIONS: Final = 10
"""GitHub keeps ten errors and ten warnings of a step and drops the rest without a word."""

_SUMMARY_ROWS: Final = 100
_MAX_TEXT_CHARS: Final = 2000
_INVALID_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# An underscore inside a word is no emphasis, so that codes stay as people search for them.
_MARKDOWN = re.compile(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w))")


def on_github(environ: Mapping[str, str]) -> bool:
    """Say whether this runs in a step of GitHub Actions."""
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


def annotation_lines(records: Sequence[Record], manifest: str) -> list[str]:
    """Return the commands for failed rows and rows in doubt, each at its line of `manifest`.

    At most `MOST_ANNOTATIONS` of a kind; the last one then says how many there are besides.
    """
    rows = [row for row in visible_records(records) if row.position >= 0]
    failed = [row for row in rows if row.state is State.FAILED]
    in_doubt = [row for row in rows if status(row) is State.IN_DOUBT]
    return [
        *_row_annotations("error", failed, manifest),
        *_row_annotations("warning", in_doubt, manifest),
    ]


def problem_lines(problems: Sequence[Problem], count: int) -> list[str]:
    """Return the commands that mark a manifest's problems at their places; at most `MOST_ANNOTATIONS`."""
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
    return [*lines, annotation("error", f"and {more} more problems", title="veobatch")] if more > 0 else lines


def repository_path(manifest: Path, environ: Mapping[str, str]) -> str:
    """Return the manifest's path as annotations want it: from the root of the checked-out repository."""
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


def step_summary(records: Sequence[Record], *, title: str, next_command: str = "") -> str:
    """Return the batch as Markdown: the sentence, the counts, the figures, and what went wrong."""
    rows = visible_records(records)
    totals = summarize(rows)
    counted = [(word, totals.counts.get(word, 0)) for word in STATUSES if totals.counts.get(word, 0)]
    sections = [
        f"## {markdown(title)}",
        markdown(" ".join(part for part in headline(totals) if part)),
        _table(
            ("Status", "Rows"), [(markdown(word.value.replace("_", " ")), f"{n:,}") for word, n in counted]
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
        f"To go on: {_code_span(next_command)}" if next_command else "",
    ]
    return "\n\n".join(block for block in sections if block) + "\n"


def write_step_summary(text: str, environ: Mapping[str, str]) -> bool:
    """Append `text` to the step's summary; return whether there was a place for it and it took it."""
    path = environ.get("GITHUB_STEP_SUMMARY", "")
    if not path:
        return False
    try:
        with Path(path).open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError:
        return False
    return True


def write_junit(records: Sequence[Record], path: Path, *, name: str = "veobatch", manifest: str = "") -> None:
    """Write JUnit XML, one test case a row: failed rows fail, doubts are errors, open rows are skipped.

    Raises `UsageError` when `junitparser` is not installed, and `OSError` when `path` cannot be written.
    """
    try:
        from junitparser import JUnitXml, TestSuite
    except ImportError as error:
        raise UsageError("--junit needs junitparser: pip install junitparser") from error
    suite = TestSuite(_xml_text(name))
    suite.add_testcases([_test_case(row, manifest) for row in visible_records(records)])
    suite.update_statistics()  # type: ignore[no-untyped-call]  # junitparser types only a part of itself
    document = JUnitXml(_xml_text(name))
    document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]  # as above
    partial = path.with_name(f"{path.name}.part")
    document.write(str(partial), pretty=True)
    partial.replace(path)


def markdown(text: str) -> str:
    """Return `text` as Markdown that shows it as it is, on one line, also in a table's cell."""
    plain = " ".join(text.split())
    escaped = _MARKDOWN.sub(r"\\\1", html.escape(plain, quote=False))
    return escaped if len(escaped) <= _MAX_TEXT_CHARS else f"{escaped[:_MAX_TEXT_CHARS].rstrip(chr(92))}…"


def _row_annotations(level: AnnotationLevel, rows: Sequence[Record], manifest: str) -> Iterator[str]:
    shown = rows if len(rows) <= MAX_ANNOTATIONS else rows[: MAX_ANNOTATIONS - 1]
    for row in shown:
        message = failure_text(row) if level == "error" else "sent, but no answer came: it may be paid"
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
                markdown(places + more),
            )
        )
    rest = len(groups) - _SUMMARY_ROWS
    tail = f"\n\nand {rest:,} more reasons in results.csv" if rest > 0 else ""
    return f"### What went wrong\n\n{_table(('Rows', 'Code', 'Reason', 'Where'), lines)}{tail}"


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
    return f"<details><summary>{len(done):,} videos</summary>\n\n{table}{more}\n\n</details>"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def _code_span(text: str) -> str:
    """Return a code span; its fence is longer than any run of backticks inside."""
    plain = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    pad = " " if "`" in plain else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def _test_case(row: Record, manifest: str) -> TestCase:
    from junitparser import Attr, Error, Failure, IntAttr, Skipped, TestCase

    class Row(TestCase):
        file = Attr("file")
        line = IntAttr("line")

    case = Row(_xml_text(row.id), classname=_xml_text(manifest or "veobatch"), time=render_duration_s(row))
    if manifest and row.line:
        case.file, case.line = _xml_text(manifest), row.line
    state = status(row)
    if state is State.FAILED:
        failure = Failure(
            _xml_text(failure_text(row)), _xml_text(row.failure.code if row.failure else "failed")
        )
        failure.text = _xml_text(f"{row.failure.message if row.failure else ''}\n\nPrompt: {row.prompt}")
        case.result = [failure]
    elif state is State.IN_DOUBT:
        case.result = [
            Error(f"sent, but no answer came (correlation id {_xml_text(row.correlation_id)})", "in_doubt")
        ]
    elif state is not State.DONE:
        case.result = [Skipped(state.value)]
    return case


def _xml_text(text: str) -> str:
    """Return `text` without the characters that XML 1.0 cannot hold."""
    return _INVALID_XML.sub("\ufffd", text)


def _escape_message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_message(text).replace(":", "%3A").replace(",", "%2C")
