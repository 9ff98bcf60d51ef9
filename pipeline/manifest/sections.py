"""The sections of a manifest, or a bare list of jobs. A section `x-...` is its author's, for anchors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.expand import matrix_rows, read_vars
from pipeline.manifest.fields import VEO_RULES, ModelRules
from pipeline.manifest.job_builder import JobBuilder
from pipeline.manifest.nodes import AmbiguousScalar, MappingNode, Member, Node, SequenceNode
from pipeline.manifest.problems import ProblemReport, format_value, pack_location
from pipeline.manifest.suggestions import closest_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECTIONS: Final = ("version", "defaults", "run", "vars", "jobs", "matrix")


def read_document(
    root: Node,
    report: ProblemReport,
    rules: Mapping[str, ModelRules],
    model: str | None = None,
    takes: int | None = None,
    folder: Path | None = None,
) -> tuple[JobBuilder, dict[str, Any]]:
    """Return the checked rows and the `run:` settings; everything wrong is in `report`."""
    if isinstance(root, MappingNode):
        return _read_sections(root, report, rules, model, takes, folder)
    builder = JobBuilder(report, rules, {}, model=model, takes=takes, folder=folder)
    if isinstance(root, SequenceNode):
        _add_jobs(root, builder, report)
    elif report.partial:
        pass
    elif root is None:
        report.add_problem(
            pack_location(1, 1), "the manifest is empty", "it has no jobs", "write jobs: and list them"
        )
    else:
        why = "a manifest is a list of jobs or a mapping with `jobs:`"
        report.add_problem(pack_location(1, 1), "not a manifest", why, "write jobs: and list them")
    return builder, {}


def _read_sections(
    root: MappingNode,
    report: ProblemReport,
    rules: Mapping[str, ModelRules],
    model: str | None,
    takes: int | None,
    folder: Path | None,
) -> tuple[JobBuilder, dict[str, Any]]:
    sections = root.members()
    _check_section_names(sections, report)
    _check_version(sections.get("version"), report)
    run = _read_run(_mapping_section("run", sections, report), report)
    variables = read_vars(_mapping_section("vars", sections, report), report)
    builder = JobBuilder(report, rules, _read_defaults(sections, report), variables, model, takes, folder)
    jobs = sections.get("jobs")
    matrix = _mapping_section("matrix", sections, report)
    if jobs is not None and isinstance(jobs.value, SequenceNode):
        _add_jobs(jobs.value, builder, report)
    elif jobs is not None:
        report.add_problem(
            jobs.value_location, "jobs is no list", "every job is an item", "start each job with `- `"
        )
    elif "matrix" not in sections and not report.partial:
        report.add_problem(
            root.location, "`jobs:` is missing", "there is nothing to do", "write jobs: and list them"
        )
    if matrix is not None:
        for fields, location in matrix_rows(matrix, report):
            builder.add_fields(fields, location)
    if not builder.drafts and not report.problem_count:
        report.add_problem(
            root.location, "there are no jobs", "nothing is left to do", "list some under jobs:"
        )
    return builder, run


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


def _add_jobs(jobs: SequenceNode, builder: JobBuilder, report: ProblemReport) -> None:
    """Check every job, dropping its nodes as soon as it is checked."""
    is_empty = True
    for node, location in jobs.drain():
        builder.add(node, location)
        is_empty = False
    if is_empty and not report.problem_count:
        report.add_problem(
            jobs.location, "there are no jobs", "the list is empty", "write [image_url, prompt] items"
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
