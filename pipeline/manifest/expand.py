"""Rows from shorthand: `matrix:` (every image with every prompt) and `${name}` from `vars:`.

Both happen before a row is checked, so that what is checked is what is sent; both are bounded.
"""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.fields import MAX_PROMPT_CHARS
from pipeline.manifest.nodes import (
    AmbiguousScalarError,
    MappingNode,
    Member,
    Node,
    SequenceNode,
    ValueTooLarge,
    to_python,
)
from pipeline.manifest.problems import ProblemReport, ProblemText, format_value
from pipeline.manifest.suggestions import closest_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_MATRIX_ROWS: Final = 200_000
"""How many rows a matrix may become. Twice the largest batch that was ever measured."""

AXIS_ALIASES: Final = {"image": "image_url", "images": "image_url", "prompts": "prompt"}
"""Other names for the two lists that every matrix has."""

_REFERENCE: Final = re.compile(r"\$?\$\{([^{}\n]{0,80})\}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def read_vars(section: MappingNode | None, report: ProblemReport) -> dict[str, str] | None:
    """Return the texts that `${name}` stands for; None when the manifest has no `vars:` at all."""
    if section is None:
        return None
    variables: dict[str, str] = {}
    for name, member in section.members().items():
        if not _NAME.fullmatch(name):
            why = "names are letters, digits, - and _"
            report.add_problem(
                member.name_location, f"the variable {format_value(name)}", why, "write name: text"
            )
        elif isinstance(member.value, str):
            variables[name] = member.value
            if any(not match[0].startswith("$$") for match in _REFERENCE.finditer(member.value)):
                why = "variables are not looked up in variables"
                report.add_problem(
                    member.value_location, f"the variable {name} holds a variable", why, "write it out"
                )
        else:
            report.add_problem(
                member.value_location, f"the variable {name} is no text", "", 'write it in quotes: "..."'
            )
            variables[name] = ""
    return variables


def substitute_vars(prompt: str, variables: Mapping[str, str]) -> str | ProblemText:
    """Return `prompt` with its `${name}` replaced (`$${` stands for `${`), or the problem text for why not.

    A replacement is not expanded again, so that variables cannot multiply each other.
    """
    length = len(prompt)
    for match in _REFERENCE.finditer(prompt):
        name = match[1]
        if match[0].startswith("$$"):
            continue
        if name not in variables:
            closest = closest_name(name, variables)
            instead = (
                f"did you mean `${{{closest}}}`?"
                if closest
                else "define it there, or write $${ for a plain ${"
            )
            return f"${{{name[:60]}}} is not defined", "`vars:` has no such name", instead
        length += len(variables[name])
        if length > MAX_PROMPT_CHARS * 2:
            return (
                "the prompt becomes too long",
                f"its variables make it over {MAX_PROMPT_CHARS:,}",
                "shorten them",
            )
    return _REFERENCE.sub(lambda m: m[0][1:] if m[0].startswith("$$") else variables[m[1]], prompt)


def matrix_rows(section: MappingNode, report: ProblemReport) -> Iterator[tuple[dict[str, Member], int]]:
    """Yield the fields and the location of each row that `section` stands for, images outermost.

    Every member is a field with a list of its values (`images` and `prompts` by their plural); the rows
    are all combinations but those that an item of `exclude` describes by some or all of its fields.
    """
    members = section.members()
    excluded = members.pop("exclude", None)
    problems_before = report.problem_count
    axes = _read_axes(members, report)
    if not members:
        report.add_problem(
            section.location, "the matrix is empty", "", "write images: [...] and prompts: [...]"
        )
    if report.problem_count > problems_before:
        return
    count = math.prod(len(values) for values in axes.values())
    if count > MAX_MATRIX_ROWS:
        what = f"the matrix is {count:,} rows"
        report.add_problem(
            section.location, what, f"{MAX_MATRIX_ROWS:,} are the most", "split it into several manifests"
        )
        return
    excludes = _read_excludes(excluded, axes, report)
    used = [False] * len(excludes)
    for combination in itertools.product(*axes.values()):
        fields = dict(zip(axes, combination, strict=True))
        matching = [n for n, pattern in enumerate(excludes) if _matches(fields, pattern)]
        for n in matching:
            used[n] = True
        if not matching:
            yield fields, fields.get("prompt", combination[-1]).value_location
    for pattern, was_used in zip(excludes, used, strict=True):
        if not was_used and pattern:
            location = next(iter(pattern.values())).value_location
            report.add_warning(location, "this exclude matches no row", "", "compare it with the lists above")


def _read_axes(members: Mapping[str, Member], report: ProblemReport) -> dict[str, list[Member]]:
    axes: dict[str, list[Member]] = {}
    for name, member in members.items():
        field = AXIS_ALIASES.get(name, name)
        if field in axes:
            report.add_problem(
                member.name_location, f"{field} is given twice", f"{name} is the same", "keep one of them"
            )
        elif field == "id":
            report.add_problem(
                member.name_location, "a matrix with ids", "each row needs its own", "leave them out"
            )
        elif isinstance(member.value, SequenceNode) and member.value.items:
            values = zip(member.value.items, member.value.locations, strict=True)
            axes[field] = [Member(value, member.name_location, at) for value, at in values]
        elif isinstance(member.value, SequenceNode) or member.value is None:
            report.add_problem(
                member.value_location, f"{name} is empty", "so the matrix is, too", "list some values"
            )
        else:
            axes[field] = [member]
    return dict(sorted(axes.items(), key=lambda axis: axis[0] == "prompt"))


def _read_excludes(
    excluded: Member | None, axes: Mapping[str, Any], report: ProblemReport
) -> list[dict[str, Member]]:
    if excluded is None or excluded.value is None:
        return []
    items = excluded.value.items if isinstance(excluded.value, SequenceNode) else [excluded.value]
    patterns: list[dict[str, Member]] = []
    for item in items:
        if not isinstance(item, MappingNode) or not item.names:
            why = "each one names the fields of the rows to leave out"
            report.add_problem(
                excluded.value_location, "exclude with no mapping in it", why, "write - {image_url: ...}"
            )
            continue
        pattern = {AXIS_ALIASES.get(name, name): member for name, member in item.members().items()}
        for name in pattern.keys() - axes.keys():
            what = f"exclude names {format_value(name)}"
            report.add_problem(
                pattern[name].name_location, what, "the matrix has no such list", f"use {', '.join(axes)}"
            )
        patterns.append(pattern)
    return patterns


def _matches(fields: Mapping[str, Member], pattern: Mapping[str, Member]) -> bool:
    return all(
        name in fields and _values_equal(fields[name].value, wanted.value) for name, wanted in pattern.items()
    )


def _values_equal(left: Node, right: Node) -> bool:
    if isinstance(left, MappingNode | SequenceNode) or isinstance(right, MappingNode | SequenceNode):
        try:
            return bool(to_python(left) == to_python(right))
        except (ValueTooLarge, AmbiguousScalarError):
            return False
    return type(left) is type(right) and left == right
