"""GitHub's files and JUnit, checked by reading them back."""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING, Any

import pytest
from junitparser import Error, JUnitXml, Properties, Skipped
from junitparser import Failure as Failed

from pipeline.cli.reporting import ci, junit
from pipeline.errors import ExitCode
from pipeline.model import Failure, State
from pipeline.results import failures
from pipeline.results.next_step import NextStep
from pipeline.results.summary_json import summary_json
from tests.unit.sample_rows import done, failed, row

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "50% | <b>bold</b>\r\n::error::no `code` \\| [x](javascript:1) *a* \x00\x1b"


def read_command(line: str) -> tuple[str, dict[str, str], str]:
    """Read a workflow command as GitHub's runner does (actions/toolkit, docs/commands.md)."""
    assert "\n" not in line
    found = re.fullmatch(r"::(\w+)(?: ([^:]*))?::(.*)", line)
    assert found is not None, line

    def plain(text: str) -> str:
        for code, char in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            text = text.replace(code, char)
        return text

    pairs = (pair.split("=", 1) for pair in (found[2] or "").split(",") if pair)
    return found[1], {name: plain(value) for name, value in pairs}, plain(found[3])


def cells(table: str) -> list[list[str]]:
    """Read the lines of a Markdown table, its escapes undone."""
    out = []
    for line in table.splitlines():
        if line.startswith("| "):
            parts = re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]
            out.append([html.unescape(re.sub(r"\\(.)", r"\1", part.strip())) for part in parts])
    return out


def test_annotations_point_at_the_manifests_lines() -> None:
    rows = [done(0), failed(1), row(2, State.IN_DOUBT), failed(3, position=-1)]
    got = [read_command(line) for line in ci.annotation_lines(rows, "jobs/a,b: c.yaml")]
    assert got == [
        (
            "error",
            {"file": "jobs/a,b: c.yaml", "line": "8", "title": "veobatch"},
            "job-1: refused: duration must be one of 4, 6, 8",
        ),
        (
            "warning",
            {"file": "jobs/a,b: c.yaml", "line": "12", "title": "veobatch"},
            "job-2: submitted, but no response came: it may be paid",
        ),
    ]


def test_annotations_are_as_many_as_are_shown() -> None:
    got = ci.annotation_lines([failed(index) for index in range(25)], "m.yaml")
    assert len(got) == ci.MAX_ANNOTATIONS
    assert read_command(got[-1])[2] == "and 16 more, see results.csv"


def test_a_message_cannot_be_a_second_command() -> None:
    line = ci.annotation("error", HOSTILE, file=HOSTILE, line=3, column=5, title=HOSTILE)
    kind, places, words = read_command(line)
    assert (kind, words) == ("error", HOSTILE)
    assert places == {"file": HOSTILE, "line": "3", "col": "5", "title": HOSTILE}


def test_an_annotation_without_a_place() -> None:
    assert ci.annotation("notice", "hello") == "::notice::hello"


def test_the_manifests_path_is_the_repositorys(tmp_path: Path) -> None:
    manifest = tmp_path / "jobs" / "a.yaml"
    assert ci.repository_path(manifest, {"GITHUB_WORKSPACE": str(tmp_path)}) == "jobs/a.yaml"
    assert ci.repository_path(manifest, {}) == manifest.as_posix()


def test_a_group_is_closed_whatever_happens() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="x"), ci.log_group("a\nb", stream):
        raise ValueError("x")
    assert stream.getvalue().splitlines() == ["::group::a%0Ab", "::endgroup::"]


def test_the_step_summary_tells_the_batch() -> None:
    rows = [done(0), done(1), failed(2), row(3, State.IN_DOUBT)]
    text = ci.step_summary(
        rows, title="overnight", next_step=NextStep("veobatch run x --retry-failed", "when you like")
    )
    assert "2 of 4 videos are saved. 1 failed and 1 is in doubt." in text.replace("\\", "")
    found = cells(text)
    assert ["done", "2"] in found
    assert [
        "1",
        "refused",
        "duration must be one of 4, 6, 8",
        failures.REMEDIES["refused"],
        "job-2 (line 12)",
    ] in found
    assert ["job-0", "Prompt 0.", "$1.20", "1 min 30 s"] in found
    assert text.rstrip().endswith("Next: `veobatch run x --retry-failed` (when you like)")


def test_the_cause_of_an_end_comes_first() -> None:
    lines = ci.annotation_lines(
        [failed(index) for index in range(25)],
        "m.yaml",
        cause="Out of credits.",
        next_step=NextStep("veobatch run m.yaml"),
    )
    assert len(lines) == ci.MAX_ANNOTATIONS
    assert read_command(lines[0]) == (
        "error",
        {"file": "m.yaml", "title": "veobatch"},
        "Out of credits.\nNext: veobatch run m.yaml",
    )
    text = ci.step_summary([row(0)], title="t", cause="Out of credits.", sandbox=True)
    assert text.startswith("## t (sandbox)\n\n**Out of credits.**")
    assert "play money" in text


def test_the_step_has_outputs(tmp_path: Path) -> None:
    path = tmp_path / "outputs"
    summary = summary_json([done(0), failed(1)], ExitCode.SOME_FAILED, None, sandbox=True, next="a\nb")
    assert ci.write_step_outputs(summary, {"GITHUB_OUTPUT": str(path)})
    outputs = dict(line.split("=", 1) for line in path.read_text().splitlines())
    assert {name: outputs[name] for name in ("done", "failed", "exit-code", "sandbox", "next", "report")} == {
        "done": "1",
        "failed": "1",
        "exit-code": "1",
        "sandbox": "true",
        "next": "a b",
        "report": "",
    }
    assert not ci.write_step_outputs(summary, {})


def test_hostile_text_stays_in_its_cell() -> None:
    rows = [done(0, prompt=HOSTILE, id="a|b"), row(1, State.FAILED, failure=Failure("c|d", HOSTILE))]
    text = ci.step_summary(rows, title=HOSTILE)
    shown = " ".join(HOSTILE.split())
    assert "<b>" not in text
    assert ["a|b", shown, "$1.20", "1 min 30 s"] in cells(text)
    assert ["1", "c|d", shown, failures.REMEDIES["refused"], "job-1 (line 8)"] in cells(text)


def test_a_huge_batch_has_a_summary_that_github_takes() -> None:
    rows: list[Any] = [failed(index, f"reason {index} " * 500) for index in range(3000)]
    rows += [done(index, prompt="x" * 5000) for index in range(3000, 6000)]
    assert len(ci.step_summary(rows, title="big").encode()) < 1024**2


def test_the_summary_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    assert ci.write_step_summary("after\n", {"GITHUB_STEP_SUMMARY": str(path)})
    assert path.read_text() == "before\nafter\n"
    assert not ci.write_step_summary("x", {})
    assert not ci.write_step_summary("x", {"GITHUB_STEP_SUMMARY": str(tmp_path / "no" / "place")})


def test_junit_says_what_became_of_each_row(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    rows = [done(0), failed(1), row(2, State.SUBMITTING, correlation_id="vb-2-1"), row(3)]
    junit.write_junit(rows, path, name="overnight", manifest="jobs/overnight.yaml")
    xml = JUnitXml.fromfile(str(path))
    assert (xml.tests, xml.failures, xml.errors, xml.skipped) == (4, 1, 1, 1)
    cases = [case for suite in xml for case in suite]
    assert [case.name for case in cases] == ["job-0", "job-1", "job-2", "job-3"]
    assert cases[0].time == 90.0
    assert cases[0].result == []
    assert [type(case.result[0]) for case in cases[1:]] == [Failed, Error, Skipped]
    assert cases[1].result[0].type == "refused"
    assert 'line="8"' in path.read_text()
    assert 'file="jobs/overnight.yaml"' in path.read_text()


def test_junit_knows_takes_and_picks(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    chosen = done(1, take=2, pick="picked", pick_note="<b>warm</b>\x00", body='{"seed": 7}')
    junit.write_junit([done(0), chosen], path)
    (suite,) = JUnitXml.fromfile(str(path))
    found = [
        {one.name: one.value for one in next(case.iterchildren(Properties))}  # type: ignore[no-untyped-call]
        for case in suite
    ]
    assert found == [
        {"take": "1"},
        {"take": "2", "seed": "7", "pick": "picked", "note": "<b>warm</b>\ufffd"},
    ]


def test_junit_fails_for_a_run_that_failed_without_a_failed_row(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    junit.write_junit([done(0, took_s=1 / 3)], path, cause="The key was refused.", code="key")
    xml = JUnitXml.fromfile(str(path))
    assert (xml.tests, xml.failures) == (2, 1)
    assert re.findall(r'time="([^"]*)"', path.read_text()) == ["0.333"] * 3
    (suite,) = xml
    assert [case.result[0].message for case in suite if case.result] == ["The key was refused."]


def test_junit_holds_any_text(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    junit.write_junit(
        [row(0, State.FAILED, prompt=HOSTILE, id=HOSTILE, failure=Failure(HOSTILE, HOSTILE))], path
    )
    ((case,),) = JUnitXml.fromfile(str(path))
    assert case.result[0].text.startswith("50% | <b>bold</b>")
    assert [found.name for found in tmp_path.iterdir()] == ["junit.xml"]
