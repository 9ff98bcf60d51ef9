"""The fast and the careful way to read JSON take the same texts, and every place is found again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.manifest import ManifestProblems, load
from pipeline.manifest.json_reader import read_json, read_jsonl
from pipeline.manifest.nodes import MappingNode, to_python
from pipeline.manifest.problems import ParseAborted, ProblemReport, unpack_location

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = "https://example.com/a.jpg"
LOG_LIMIT = "1797693134862315" + "0" * 293

digits = st.text("0123456789", max_size=24)
numbers = st.builds(
    lambda sign, whole, fraction, exponent: sign + whole + fraction + exponent,
    st.sampled_from(["", "-", "+"]),
    st.sampled_from(["0", "7", "01", ""]) | digits.map(lambda d: f"1{d}"),
    st.just("") | digits.map(lambda d: f".{d}"),
    st.sampled_from(["", "e", "E+2", "e-400", "e999", "e308", "e18"]),
)
words = st.sampled_from(["true", "false", "null", "NaN", "-Infinity", '"\\ud83d\\ude00"', "nul"])
texts = st.text(max_size=6).map(json.dumps) | st.text(max_size=6).map(
    lambda t: json.dumps(t, ensure_ascii=False)
)
values = st.recursive(
    numbers | words | texts,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{' , '.join(items)}]")
        | st.lists(st.tuples(texts, inner), max_size=3).map(
            lambda pairs: f"{{{','.join(map(':'.join, pairs))}}}"
        )
    ),
    max_leaves=6,
)
blanks = st.text(" \t\r", max_size=2)
ends = st.sampled_from(["", "", "\r", " ", "\x0b", "\u00a0", "\u2028", "x", "}"])


@st.composite
def lines(draw: st.DrawFn) -> str:
    members = draw(st.lists(st.tuples(texts, blanks, values), min_size=1, max_size=4))
    written = ",".join(f"{name}{blank}:{blank}{value}" for name, blank, value in members)
    return f"{draw(blanks)}{{{written}}}{draw(ends)}"


@given(lines())
@example('{"a": 0.30000000000000004, "b": 1}')
@example('{"a": 1e5}')
@example('{"a": 1}\u00a0')
def test_every_member_of_a_row_that_is_read_is_found_at_its_place(line: str) -> None:
    report = ProblemReport("")
    for row, _ in read_jsonl(line, report).drain():
        if report.problem_count:
            return
        assert isinstance(row, MappingNode)
        for name, value, name_at, value_at in zip(
            row.names, row.values, row.name_locations, row.value_locations, strict=True
        ):
            assert decoded_at(line, report.resolve_location(name_at)) == name
            assert decoded_at(line, report.resolve_location(value_at)) == to_python(value)


@given(lines())
@example('{"a": 0.30000000000000004}')
@example('{"a": 1e5}')
@example('{"a": 1e999}')
@example('{"a": 1}\u00a0')
def test_a_line_is_read_as_the_same_text_in_a_file_of_its_own(line: str) -> None:
    assert read_line(line) == read_document(line)


@pytest.mark.parametrize("number", ["1e999", "-1e400", LOG_LIMIT + "000.0"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_an_infinite_number_is_refused_at_its_place(number: str, suffix: str, tmp_path: Path) -> None:
    row = f'{{"model": "other/x", "prompt": "x", "params": {{"a": {number}}}}}'
    text = {
        ".jsonl": f"{row}\n",
        ".json": f"[{row}]",
        ".csv": f'prompt,model,params\nx,other/x,"{{""a"": {number}}}"\n',
    }[suffix]
    found = problems_of(tmp_path / f"batch{suffix}", text)
    place = {".jsonl": (1, row.index(number) + 1), ".json": (1, row.index(number) + 2), ".csv": (2, 11)}[
        suffix
    ]
    assert [(p.line, p.column, "a number without bounds" in p.what) for p in found.problems] == [
        (*place, True)
    ]


@pytest.mark.parametrize("number", ["0.30000000000000004", "1.5e1"])
def test_a_problem_is_told_beside_a_long_number(number: str, tmp_path: Path) -> None:
    row = f'{{"image_url": "{IMAGE}", "prompt": "x", "duration": 5, "seed": {number}}}'
    found = problems_of(tmp_path / "batch.jsonl", row)
    assert [p.column for p in found.problems] == [row.index("5,") + 1, row.index('"seed"') + 1]


def test_a_warning_is_told_beside_a_long_number(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    scale = '"params": {"cfg_scale": 0.30000000000000004}'
    path.write_text(f'{{"model": "other/x", "prompt": "a ${{b}}", {scale}}}\n', encoding="utf-8")
    manifest = load(path)
    assert [warning.column for warning in manifest.warnings] == [11, 32]
    assert manifest.jobs[0].body["cfg_scale"] == 0.30000000000000004


def test_a_name_that_is_given_twice_in_a_cell_is_refused(tmp_path: Path) -> None:
    table = 'prompt,model,params\nx,other/x,"{""a"": 1, ""a"": 2}"\n'
    found = problems_of(tmp_path / "batch.csv", table)
    assert [(p.line, p.column, p.what) for p in found.problems] == [(2, 11, 'params: "a" is given twice')]


def test_a_problem_inside_of_a_cell_stands_at_the_cell(tmp_path: Path) -> None:
    table = f'image_url,prompt,params\n{IMAGE},x,\n{IMAGE},x,"{{""duration"": 5}}"\n'
    found = problems_of(tmp_path / "batch.csv", table)
    assert [(p.line, p.column, p.what) for p in found.problems] == [(3, len(IMAGE) + 4, "duration is 5")]


def decoded_at(line: str, location: int) -> Any:
    number, column = unpack_location(location)
    assert number == 1
    return json.JSONDecoder().raw_decode(line, column - 1)[0]


def read_line(text: str) -> Any:
    report = ProblemReport("")
    rows = [to_python(row) for row, _ in read_jsonl(text, report).drain()]
    return "refused" if report.problem_count else rows


def read_document(text: str) -> Any:
    report = ProblemReport("")
    try:
        rows = [to_python(read_json(text, report))]
    except ParseAborted:
        return "refused"
    return "refused" if report.problem_count else rows


def problems_of(path: Path, text: str) -> ManifestProblems:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ManifestProblems) as caught:
        load(path)
    return caught.value
