"""The sections of a manifest that is no bare list. A section `x-...` is its author's, for anchors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pipeline.manifest.expand import read_vars
from pipeline.manifest.fields import VEO_RULES
from pipeline.manifest.nodes import AmbiguousScalar, MappingNode, Member, Node, SequenceNode
from pipeline.manifest.problems import ProblemReport, format_value, pack_location
from pipeline.manifest.suggestions import closest_name

if TYPE_CHECKING:
    from collections.abc import Mapping

SECTIONS: Final = ("version", "defaults", "run", "vars", "jobs", "matrix")


class Sections(NamedTuple):
    """What a manifest says around its rows, and those that stand in it: `jobs`, and `matrix`."""

    location: int
    run: Mapping[str, Any]
    variables: Mapping[str, str] | None
    defaults: Mapping[str, Member]
    jobs: SequenceNode | None
    matrix: MappingNode | None


NO_SECTIONS: Final = Sections(pack_location(1, 1), {}, None, {}, None, None)
"""Of a manifest that is a bare list of rows, or none at all."""


def read_sections(root: Node, report: ProblemReport) -> Sections:
    """Return the sections of a manifest that is no bare list; what is wrong with them is in `report`."""
    if not isinstance(root, MappingNode):
        _report_no_manifest(root, report)
        return NO_SECTIONS
    sections = root.members()
    _check_section_names(sections, report)
    _check_version(sections.get("version"), report)
    run = _read_run(_mapping_section("run", sections, report), report)
    variables = read_vars(_mapping_section("vars", sections, report), report)
    defaults = _read_defaults(sections, report)
    jobs = sections.get("jobs")
    if jobs is not None and not isinstance(jobs.value, SequenceNode):
        report.add_problem(
            jobs.value_location, "jobs is no list", "every job is an item", "start each job with `- `"
        )
    elif jobs is None and "matrix" not in sections and not report.partial:
        report.add_problem(
            root.location, "`jobs:` is missing", "there is nothing to do", "write jobs: and list them"
        )
    items = jobs.value if jobs is not None and isinstance(jobs.value, SequenceNode) else None
    matrix = _mapping_section("matrix", sections, report)
    return Sections(root.location, run, variables, defaults, items, matrix)


def _report_no_manifest(root: Node, report: ProblemReport) -> None:
    if report.partial:
        return
    if root is None:
        what, why = "the manifest is empty", "it has no jobs"
    else:
        what, why = "not a manifest", "a manifest is a list of jobs or a mapping with `jobs:`"
    report.add_problem(pack_location(1, 1), what, why, "write jobs: and list them")


def _check_section_names(sections: Mapping[str, Member], report: ProblemReport) -> None:
    for name in sections.keys() - set(SECTIONS):
        if name.startswith("x-"):
            continue
        closest = closest_name(name, SECTIONS)
        instead = f"did you mean `{closest}`?" if closest else f"a manifest has {', '.join(SECTIONS)}"
        if name in VEO_RULES.fields:
            instead = "put it under `defaults:`, or in a job under `jobs:`"
        report.add_problem(
            sections[name].name_location,
            f"unknown section {format_value(name)}",
            "it would be ignored",
            instead,
        )


def _check_version(member: Member | None, report: ProblemReport) -> None:
    if member is not None and (member.value != 1 or type(member.value) is not int):
        version_text = (
            member.value.text if isinstance(member.value, AmbiguousScalar) else format_value(member.value)
        )
        report.add_problem(
            member.value_location,
            f"version is {version_text}",
            "this program reads version 1",
            "write version: 1",
        )


def _mapping_section(name: str, sections: Mapping[str, Member], report: ProblemReport) -> MappingNode | None:
    member = sections.get(name)
    if member is None:
        return None
    if isinstance(member.value, MappingNode):
        return member.value
    if member.value is not None:
        report.add_problem(
            member.value_location,
            f"{name} is no mapping",
            "it holds name: value lines",
            f"write {name}: {{}}",
        )
    return None


def _read_defaults(sections: Mapping[str, Member], report: ProblemReport) -> dict[str, Member]:
    section = _mapping_section("defaults", sections, report)
    defaults = section.members() if section is not None else {}
    given_id = defaults.pop("id", None)
    if given_id is not None:
        report.add_problem(
            given_id.name_location, "defaults hold an id", "every row needs its own", "give ids in the jobs"
        )
    return defaults


def _setting_hint(name: str, value: Node) -> str:
    """Say what to write for a setting whose value has the right number in the wrong clothes."""
    number = (
        re.fullmatch(r"\W*([0-9]+(?:\.[0-9]+)?)\W*(?:USD|usd|s|seconds)?", value)
        if isinstance(value, str)
        else None
    )
    return f"write {name}: {number[1]}" if number else "change the value"


def _read_run(section: MappingNode | None, report: ProblemReport) -> dict[str, Any]:
    from pydantic import ValidationError

    from pipeline.settings import Settings

    if section is None:
        return {}
    members = section.members()
    values: dict[str, Any] = {}
    for name, member in members.items():
        if name not in Settings.model_fields:
            closest = closest_name(name, Settings.model_fields)
            instead = (
                f"did you mean `{closest}`?" if closest else f"it takes {', '.join(Settings.model_fields)}"
            )
            report.add_problem(
                member.name_location, f"unknown setting {format_value(name)}", "run: holds settings", instead
            )
        elif member.value is not None:
            values[name] = (
                "?"
                if isinstance(member.value, MappingNode | SequenceNode | AmbiguousScalar)
                else member.value
            )
    try:
        Settings.model_validate(values, strict=True)
    except ValidationError as error:
        for item in error.errors():
            name = str(item["loc"][0])
            value = members[name].value
            value_text = value.text if isinstance(value, AmbiguousScalar) else format_value(values[name])
            report.add_problem(
                members[name].value_location,
                f"run.{name} is {value_text}",
                str(item["msg"]).lower(),
                _setting_hint(name, value),
            )
    return values
