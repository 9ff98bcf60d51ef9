"""The sections of a manifest, or a bare list of jobs. A section `x-...` is its author's, for anchors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.expand import matrix_rows, read_vars
from pipeline.manifest.fields import VEO, ModelRules, nearest
from pipeline.manifest.nodes import Map, Member, Node, Seq, Trap
from pipeline.manifest.problems import Report, pack, show
from pipeline.manifest.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Mapping

SECTIONS: Final = ("version", "defaults", "run", "vars", "jobs", "matrix")


def read_document(root: Node, report: Report, rules: Mapping[str, ModelRules]) -> tuple[Rows, dict[str, Any]]:
    """Return the checked rows and the `run:` settings; everything wrong is in `report`."""
    if isinstance(root, Map):
        return _read_sections(root, report, rules)
    rows = Rows(report, rules, {})
    if isinstance(root, Seq):
        _add_all(root, rows, report)
    elif report.partial:
        pass
    elif root is None:
        report.problem(pack(1, 1), "the manifest is empty", "it has no jobs", "write jobs: and list them")
    else:
        why = "a manifest is a list of jobs or a mapping with `jobs:`"
        report.problem(pack(1, 1), "not a manifest", why, "write jobs: and list them")
    return rows, {}


def _read_sections(root: Map, report: Report, rules: Mapping[str, ModelRules]) -> tuple[Rows, dict[str, Any]]:
    sections = root.members()
    _refuse_unknown(sections, report)
    _check_version(sections.get("version"), report)
    run = _read_run(_mapping("run", sections, report), report)
    texts = read_vars(_mapping("vars", sections, report), report)
    rows = Rows(report, rules, _read_defaults(sections, report), texts)
    jobs = sections.get("jobs")
    matrix = _mapping("matrix", sections, report)
    if jobs is not None and isinstance(jobs.value, Seq):
        _add_all(jobs.value, rows, report)
    elif jobs is not None:
        report.problem(jobs.value_at, "jobs is no list", "every job is an item", "start each job with `- `")
    elif "matrix" not in sections and not report.partial:
        report.problem(root.at, "`jobs:` is missing", "there is nothing to do", "write jobs: and list them")
    if matrix is not None:
        for fields, at in matrix_rows(matrix, report):
            rows.add_fields(fields, at)
    if not rows.drafts and not report.count:
        report.problem(root.at, "there are no jobs", "nothing is left to do", "list some under jobs:")
    return rows, run


def _refuse_unknown(sections: Mapping[str, Member], report: Report) -> None:
    for name in sections.keys() - set(SECTIONS):
        if name.startswith("x-"):
            continue
        close = nearest(name, SECTIONS)
        instead = f"did you mean `{close}`?" if close else f"a manifest has {', '.join(SECTIONS)}"
        if name in VEO.fields:
            instead = "put it under `defaults:`, or in a job under `jobs:`"
        report.problem(
            sections[name].name_at, f"unknown section {show(name)}", "it would be ignored", instead
        )


def _add_all(jobs: Seq, rows: Rows, report: Report) -> None:
    """Check every job, letting go of each tree as it is done with."""
    if not jobs.items and not report.count:
        report.problem(jobs.at, "there are no jobs", "the list is empty", "write [image_url, prompt] items")
    for n, at in enumerate(jobs.ats):
        node, jobs.items[n] = jobs.items[n], None
        rows.add(node, at)


def _check_version(member: Member | None, report: Report) -> None:
    if member is not None and (member.value != 1 or type(member.value) is not int):
        shown = member.value.text if isinstance(member.value, Trap) else show(member.value)
        report.problem(
            member.value_at, f"version is {shown}", "this program reads version 1", "write version: 1"
        )


def _mapping(name: str, sections: Mapping[str, Member], report: Report) -> Map | None:
    member = sections.get(name)
    if member is None:
        return None
    if isinstance(member.value, Map):
        return member.value
    if member.value is not None:
        report.problem(
            member.value_at, f"{name} is no mapping", "it holds name: value lines", f"write {name}: {{}}"
        )
    return None


def _read_defaults(sections: Mapping[str, Member], report: Report) -> dict[str, Member]:
    found = _mapping("defaults", sections, report)
    defaults = found.members() if found is not None else {}
    given = defaults.pop("id", None)
    if given is not None:
        report.problem(
            given.name_at, "defaults hold an id", "every row needs its own", "give ids in the jobs"
        )
    return defaults


def _read_run(section: Map | None, report: Report) -> dict[str, Any]:
    from pydantic import ValidationError

    from pipeline.settings import Settings

    if section is None:
        return {}
    members = section.members()
    values: dict[str, Any] = {}
    for name, member in members.items():
        if name not in Settings.model_fields:
            close = nearest(name, Settings.model_fields)
            instead = f"did you mean `{close}`?" if close else f"it takes {', '.join(Settings.model_fields)}"
            report.problem(member.name_at, f"unknown setting {show(name)}", "run: holds settings", instead)
        elif member.value is not None:
            values[name] = "?" if isinstance(member.value, Map | Seq | Trap) else member.value
    try:
        Settings.model_validate(values, strict=True)
    except ValidationError as error:
        for item in error.errors():
            name = str(item["loc"][0])
            shown = members[name].value
            word = shown.text if isinstance(shown, Trap) else show(values[name])
            report.problem(
                members[name].value_at, f"run.{name} is {word}", str(item["msg"]).lower(), "change the value"
            )
    return values
