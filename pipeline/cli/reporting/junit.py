"""JUnit XML of a run, for CI services other than GitHub: one test case a row, one more for the run's end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.cli.reporting.summary_text import failure_text
from pipeline.manifest.jobs import take_seed
from pipeline.model import State, render_duration_s
from pipeline.results.csv_rows import status, visible_records

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from junitparser import Properties, TestCase

    from pipeline.model import Record

_INVALID_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PARTIAL_SUFFIX = ".veobatch-part"


def write_junit(
    records: Sequence[Record],
    path: Path,
    *,
    name: str = "veobatch",
    manifest: str = "",
    cause: str = "",
    code: str = "stopped",
) -> None:
    """Write one test case a take: failed ones fail, those in doubt are errors, open ones are skipped.

    The properties of a case are `take`, and where there is one, `seed`, `pick` and `note`.

    A `cause`, why the run did not succeed, is a failing case of its own, of type `code`. Raises `OSError`
    when `path` cannot be written.
    """
    from junitparser import JUnitXml, TestSuite

    suite = TestSuite(_xml_text(name))
    cases = [_test_case(row, manifest) for row in visible_records(records)]
    suite.add_testcases([*([_end_case(cause, code, manifest)] if cause else []), *cases])
    suite.update_statistics()  # type: ignore[no-untyped-call]  # junitparser types only a part of itself
    suite.time = round(suite.time, 3)
    document = JUnitXml(_xml_text(name))
    document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]  # as above
    document.time = round(document.time, 3)
    partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    try:
        document.write(str(partial), pretty=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _test_case(row: Record, manifest: str) -> TestCase:
    from junitparser import Attr, Error, Failure, IntAttr, Skipped, TestCase

    class Row(TestCase):
        file = Attr("file")
        line = IntAttr("line")

    taken_s = render_duration_s(row)
    time_s = None if taken_s is None else round(taken_s, 3)
    case = Row(_xml_text(row.id), classname=_xml_text(manifest or "veobatch"), time=time_s)
    if manifest and row.line:
        case.file, case.line = _xml_text(manifest), row.line
    case.append(_properties(row))  # type: ignore[no-untyped-call]  # as above
    state = status(row)
    if state is State.FAILED:
        code = row.failure.code if row.failure else "failed"
        failure = Failure(_xml_text(failure_text(row)), _xml_text(code))
        failure.text = _xml_text(f"{row.failure.message if row.failure else ''}\n\nPrompt: {row.prompt}")
        case.result = [failure]
    elif state is State.IN_DOUBT:
        message = f"submitted, but no response came (correlation id {_xml_text(row.correlation_id)})"
        case.result = [Error(message, "in_doubt")]
    elif state is not State.DONE:
        case.result = [Skipped(state.value)]
    return case


def _properties(row: Record) -> Properties:
    """Return which take a row is, the seed it was given, and what a reviewer said of it."""
    from junitparser import Properties, Property

    said = {"take": str(row.take), "seed": take_seed(row.body), "pick": row.pick, "note": row.pick_note}
    properties = Properties()  # type: ignore[no-untyped-call]  # as above
    for name, value in said.items():
        if value:
            properties.add_property(Property(name, _xml_text(value)))
    return properties


def _end_case(cause: str, code: str, manifest: str) -> TestCase:
    from junitparser import Failure, TestCase

    case = TestCase("the run", classname=_xml_text(manifest or "veobatch"))
    case.result = [Failure(_xml_text(cause), code)]
    return case


def _xml_text(text: str) -> str:
    """Return `text` without the characters that XML 1.0 cannot hold."""
    return _INVALID_XML.sub("\ufffd", text)
