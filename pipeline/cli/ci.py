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

from pipeline.cli.farewell import reason
from pipeline.errors import UsageError
from pipeline.model import Record, State, rendering_s
from pipeline.results.csv import STATUSES, listed, status, summary
from pipeline.results.report.story import figures, headline, money, span, troubles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from junitparser import TestCase

    from pipeline.manifest import Problem

Kind = Literal["error", "warning", "notice"]

MOST_ANNOTATIONS: Final = 10
"""GitHub keeps ten errors and ten warnings of a step and drops the rest without a word."""

_SUMMARY_ROWS: Final = 100
_LONGEST_WORDS: Final = 2000
_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# An underscore inside a word is no emphasis, so that codes stay as people search for them.
_MARKDOWN = re.compile(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w))")


def on_github(environ: Mapping[str, str]) -> bool:
    """Say whether this runs in a step of GitHub Actions."""
    return environ.get("GITHUB_ACTIONS") == "true"


def annotation(
    kind: Kind, message: str, *, file: str = "", line: int = 0, column: int = 0, title: str = ""
) -> str:
    """Return one workflow command that marks `file` at `line` (from 1; 0 is unknown)."""
    places = {"file": file, "line": line, "col": column, "title": title}
    told = ",".join(f"{name}={_property(str(value))}" for name, value in places.items() if value)
    return f"::{kind}{' ' if told else ''}{told}::{_data(message)}"


def annotation_lines(records: Sequence[Record], manifest: str) -> list[str]:
    """Return the commands for failed rows and rows in doubt, each at its line of `manifest`.

    At most `MOST_ANNOTATIONS` of a kind; the last one then says how many there are besides.
    """
    rows = [row for row in listed(records) if row.position >= 0]
    failed = [row for row in rows if row.state is State.FAILED]
    doubts = [row for row in rows if status(row) is State.IN_DOUBT]
    return [
        *_bounded("error", failed, manifest),
        *_bounded("warning", doubts, manifest),
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
        for problem in problems[:MOST_ANNOTATIONS]
    ]
    more = count - len(lines)
    return [*lines, annotation("error", f"and {more} more problems", title="veobatch")] if more > 0 else lines


def manifest_in_repository(manifest: Path, environ: Mapping[str, str]) -> str:
    """Return the manifest's path as annotations want it: from the root of the checked-out repository."""
    root = environ.get("GITHUB_WORKSPACE", "")
    whole = manifest.resolve()
    if root and whole.is_relative_to(Path(root).resolve()):
        return whole.relative_to(Path(root).resolve()).as_posix()
    return manifest.as_posix()


@contextmanager
def group(title: str, stream: TextIO) -> Iterator[None]:
    """Fold what is printed inside into one line of the log."""
    print(f"::group::{_data(title)}", file=stream, flush=True)
    try:
        yield
    finally:
        print("::endgroup::", file=stream, flush=True)


def step_summary(records: Sequence[Record], *, title: str, next_command: str = "") -> str:
    """Return the batch as Markdown: the sentence, the counts, the figures, and what went wrong."""
    rows = listed(records)
    totals = summary(rows)
    counted = [(word, totals.counts.get(word, 0)) for word in STATUSES if totals.counts.get(word, 0)]
    blocks = [
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
        _failures(rows),
        _videos(rows),
        f"To go on: {_code(next_command)}" if next_command else "",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


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
    suite = TestSuite(_xml(name))
    suite.add_testcases([_case(row, manifest) for row in listed(records)])
    suite.update_statistics()  # type: ignore[no-untyped-call]  # junitparser types only a part of itself
    whole = JUnitXml(_xml(name))
    whole.add_testsuite(suite)
    whole.update_statistics()  # type: ignore[no-untyped-call]  # as above
    part = path.with_name(f"{path.name}.part")
    whole.write(str(part), pretty=True)
    part.replace(path)


def markdown(text: str) -> str:
    """Return `text` as Markdown that shows it as it is, on one line, also in a table's cell."""
    plain = " ".join(text.split())
    escaped = _MARKDOWN.sub(r"\\\1", html.escape(plain, quote=False))
    return escaped if len(escaped) <= _LONGEST_WORDS else f"{escaped[:_LONGEST_WORDS].rstrip(chr(92))}…"


def _bounded(kind: Kind, rows: Sequence[Record], manifest: str) -> Iterator[str]:
    shown = rows if len(rows) <= MOST_ANNOTATIONS else rows[: MOST_ANNOTATIONS - 1]
    for row in shown:
        words = reason(row) if kind == "error" else "sent, but no answer came: it may be paid"
        yield annotation(kind, f"{row.id}: {words}", file=manifest, line=row.line, title="veobatch")
    if len(rows) > len(shown):
        yield annotation(kind, f"and {len(rows) - len(shown)} more, see results.csv", title="veobatch")


def _failures(rows: Sequence[Record]) -> str:
    found = troubles(rows)
    if not found:
        return ""
    lines = []
    for trouble in found[:_SUMMARY_ROWS]:
        places = ", ".join(f"{row.id} (line {row.line})" if row.line else row.id for row in trouble.rows[:5])
        more = f" and {trouble.count - 5:,} more" if trouble.count > 5 else ""
        lines.append(
            (f"{trouble.count:,}", markdown(trouble.code), markdown(trouble.message), markdown(places + more))
        )
    rest = len(found) - _SUMMARY_ROWS
    tail = f"\n\nand {rest:,} more reasons in results.csv" if rest > 0 else ""
    return f"### What went wrong\n\n{_table(('Rows', 'Code', 'Reason', 'Where'), lines)}{tail}"


def _videos(rows: Sequence[Record]) -> str:
    done = [row for row in rows if row.state is State.DONE]
    if not done:
        return ""
    lines = [
        (
            markdown(row.id),
            markdown(row.prompt if len(row.prompt) <= 120 else f"{row.prompt[:119]}…"),
            money(row.usd_spent) if row.usd_spent is not None else "",
            span(taken) if (taken := rendering_s(row)) is not None else "",
        )
        for row in done[:_SUMMARY_ROWS]
    ]
    more = f"\n\nand {len(done) - _SUMMARY_ROWS:,} more" if len(done) > _SUMMARY_ROWS else ""
    table = _table(("Id", "Prompt", "Cost", "Rendering"), lines)
    return f"<details><summary>{len(done):,} videos</summary>\n\n{table}{more}\n\n</details>"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def _code(text: str) -> str:
    """Return a code span; its fence is longer than any run of backticks inside."""
    plain = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    pad = " " if "`" in plain else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def _case(row: Record, manifest: str) -> TestCase:
    from junitparser import Attr, Error, Failure, IntAttr, Skipped, TestCase

    class Row(TestCase):
        file = Attr("file")
        line = IntAttr("line")

    case = Row(_xml(row.id), classname=_xml(manifest or "veobatch"), time=rendering_s(row))
    if manifest and row.line:
        case.file, case.line = _xml(manifest), row.line
    word = status(row)
    if word is State.FAILED:
        failure = Failure(_xml(reason(row)), _xml(row.failure.code if row.failure else "failed"))
        failure.text = _xml(f"{row.failure.message if row.failure else ''}\n\nPrompt: {row.prompt}")
        case.result = [failure]
    elif word is State.IN_DOUBT:
        case.result = [
            Error(f"sent, but no answer came (correlation id {_xml(row.correlation_id)})", "in_doubt")
        ]
    elif word is not State.DONE:
        case.result = [Skipped(word.value)]
    return case


def _xml(text: str) -> str:
    """Return `text` without the characters that XML 1.0 cannot hold."""
    return _NO_XML.sub("\ufffd", text)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
