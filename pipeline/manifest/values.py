"""A field's value, checked against its rule and made what is sent: variables, URLs, nested values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.manifest.expand import substitute_vars
from pipeline.manifest.fields import FieldKind, FieldRule, media_kind
from pipeline.manifest.local_files import is_local
from pipeline.manifest.nodes import (
    AmbiguousScalar,
    AmbiguousScalarError,
    MappingNode,
    Member,
    SequenceNode,
    ValueTooLarge,
    to_python,
)
from pipeline.manifest.problems import ProblemReport, ProblemText, format_bare
from pipeline.manifest.urls import clean_url, url_doubt, url_problem

if TYPE_CHECKING:
    from collections.abc import Mapping


def any_field(name: str) -> FieldRule:
    """Return the rule for a field of which nothing is known but its name."""
    return FieldRule(FieldKind.ANY, nullable=True, media=media_kind(name))


def check_value(
    name: str,
    member: Member,
    rule: FieldRule,
    variables: Mapping[str, str] | None,
    report: ProblemReport,
) -> Any:
    """Return a field's value as it is sent; what is wrong with it goes into the report.

    `variables` are the manifest's, None without them.
    """
    value: Any = member.value
    if isinstance(value, MappingNode | SequenceNode):
        value = _to_python(name, member, report)
    elif name == "prompt" and isinstance(value, str) and "${" in value:
        value = _substitute_vars(value, member, variables, report)
    elif rule.kind is FieldKind.URL and isinstance(value, str) and not (rule.media and is_local(value)):
        value = _clean_url(name, value, member.value_location, report)
    problem = rule.check(name, value)
    if problem:
        report.add_problem(member.value_location, *problem)
    return value


def _clean_url(name: str, value: str, location: int, report: ProblemReport) -> str:
    cleaned, cut = clean_url(value)
    if cleaned and cleaned != value:
        report.add_warning(location, f"{name} has {cut}", "it was left out", "")
    if not url_problem(name, cleaned) and (doubt := url_doubt(name, cleaned)):
        report.add_warning(location, *doubt)
    return cleaned or value


def _substitute_vars(
    prompt: str, member: Member, variables: Mapping[str, str] | None, report: ProblemReport
) -> str:
    if variables is None:
        why = "there is no `vars:` section, so it is sent as it stands"
        report.add_warning(member.value_location, "the prompt has ${ in it", why)
        return prompt
    substituted = substitute_vars(prompt, variables)
    if isinstance(substituted, str):
        return substituted
    report.add_problem(member.value_location, *substituted)
    return prompt


def _to_python(name: str, member: Member, report: ProblemReport) -> Any:
    try:
        return to_python(member.value, member.value_location)
    except AmbiguousScalarError as error:
        report.add_problem(error.location, *_ambiguous_scalar_problem(name, error.scalar))
    except ValueTooLarge:
        report.add_problem(
            member.value_location,
            f"{name} is too large",
            "its aliases multiply",
            "write out what you need",
        )
    return {} if isinstance(member.value, MappingNode) else []


def _ambiguous_scalar_problem(name: str, scalar: AmbiguousScalar) -> ProblemText:
    why = f"YAML reads that as {scalar.yaml_meaning}"
    return (
        f"{format_bare(scalar.text)} in {name} without quotes",
        why,
        f'write "{format_bare(scalar.text)}" or a plain value',
    )
