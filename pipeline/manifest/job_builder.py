"""One row of any format -> a checked `Job`; the ids and fingerprints of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.fields import (
    BUILT_IN_MODEL,
    UNKNOWN_MODEL_RULES,
    VEO_RULES,
    ModelRules,
)
from pipeline.manifest.identity import canonical_json, fingerprint
from pipeline.manifest.jobs import JobDraft, check_id, pop_seeds, pop_takes, seed_range
from pipeline.manifest.local_files import LocalFiles, image_as_written, rename_image
from pipeline.manifest.nodes import (
    AmbiguousScalar,
    MappingNode,
    Member,
    Node,
    SequenceNode,
)
from pipeline.manifest.problems import ParseAborted, ProblemReport, format_bare, format_value
from pipeline.manifest.repeated_rows import RepeatedRow, RepeatedRows
from pipeline.manifest.suggestions import closest_name
from pipeline.manifest.values import any_field, check_value

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_BODY_CHARS_TOTAL: Final = 128 * 1024 * 1024
"""How much JSON all bodies together may be; aliases can make a small file ask for terabytes."""


class JobBuilder:
    """Checks rows against `rules` (by model name) and collects the drafts of those that hold.

    `model` replaces the manifest's default model, wherever a row has that one; `takes` every row's number.
    Paths of files count from `folder`.
    """

    def __init__(
        self,
        report: ProblemReport,
        rules: Mapping[str, ModelRules],
        defaults: Mapping[str, Member],
        variables: Mapping[str, str] | None = None,
        model: str | None = None,
        takes: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self._report = report
        self._rules = rules
        self._variables = variables
        self._defaults = dict(defaults)
        self._params = self._read_params(self._defaults.pop("params", None))
        rename_image(self._defaults, self._report)
        default = self._defaults.get("model")
        self._default_model = BUILT_IN_MODEL if default is None else str(_scalar_or_empty(default.value))
        self._model = model
        self._takes = takes
        self.files = LocalFiles((folder or Path()).absolute())
        self._id_locations: dict[str, int] = {}
        self._repeated = RepeatedRows()
        self._body_chars_left = _MAX_BODY_CHARS_TOTAL
        self.models: set[str] = set()
        self.drafts: list[JobDraft] = []

    def add(self, node: Node, location: int) -> None:
        """Check one row; what is wrong with it goes into the report."""
        if isinstance(node, MappingNode):
            repeated = self._repeated.match(node)
            if repeated is None:
                self._add_mapping(node)
            else:
                self._add_repeated(node, repeated)
        elif isinstance(node, SequenceNode):
            self._add_pair(node)
        else:
            what = "a job that is nothing" if node is None else f"a job that is only {_format_node(node)}"
            self._report.add_problem(
                location, what, "a job has an image and a prompt", "write [image_url, prompt]"
            )

    def _add_mapping(self, node: MappingNode) -> None:
        report, drafts = self._report, len(self.drafts)
        findings_before = report.reported_count + report.warned_count
        self.add_fields(node.members(), node.location)
        if len(self.drafts) > drafts and report.reported_count + report.warned_count == findings_before:
            draft = self.drafts[-1]
            self._repeated.learn(node, draft, self._rules_for(draft.body["model"]))

    def _add_repeated(self, node: MappingNode, row: RepeatedRow) -> None:
        """Add a row of which only the id is still to be checked."""
        reported_before, index = self._report.reported_count, row.id_index
        row_id = None
        if index is not None:
            location = node.value_locations[index]
            row_id = self._read_id(Member(node.values[index], location, location))
        if self._report.reported_count > reported_before:
            self._report.bad_rows += 1
            return
        identity = self._fingerprint(row.canonical, node.location)
        first = row.draft
        self.drafts.append(
            JobDraft(row_id, identity, row.body, node.location, first.takes, first.given_seeds, first.seeds)
        )

    def _add_pair(self, pair: SequenceNode) -> None:
        if len(pair.items) != 2:
            what = f"a pair of {len(pair.items)} items"
            self._report.add_problem(
                pair.location, what, "the short form is the image and the prompt", "write [image_url, prompt]"
            )
            return
        names = ("image_url", "prompt")
        rows = zip(names, pair.items, pair.locations, strict=True)
        self.add_fields({name: Member(value, at, at) for name, value, at in rows}, pair.location)

    def add_fields(self, row: dict[str, Member], location: int) -> None:
        """Check the row at `location` whose own fields are `row`."""
        reported_before = self._report.reported_count
        given_id = row.pop("id", None)
        own_params = self._read_params(row.pop("params", None))
        rename_image(row, self._report)
        for name in own_params.keys() & row.keys():
            self._report.add_problem(
                own_params[name].name_location, f"{name} is given twice", "once in params", "keep one"
            )
        # Later ones win: what a row says itself beats the defaults.
        fields = {**self._defaults, **self._params, **row, **own_params}
        in_params = self._params.keys() | own_params.keys()
        takes = pop_takes(fields, in_params, self._report)
        model = self._read_model(fields, location)
        rules = self._rules_for(model)
        given_seeds = pop_seeds(fields, rules, self._report)
        body = {"model": model}
        for name, member in fields.items():
            if name != "model" and self._check_known(name, member, rules, in_params):
                rule = rules.fields.get(name) or any_field(name)
                value = check_value(name, member, rule, self._variables, self._report)
                body[name] = self.files.replace(model, name, value, rule, member.value_location, self._report)
        likely_meant = {closest_name(name, rules.fields) for name in fields.keys() - rules.fields.keys()}
        for name in rules.required:
            if name not in fields and name not in likely_meant:
                self._report.add_problem(
                    location, f"{name} is missing", "the model needs it", f"add {name}: ..."
                )
        row_id = self._read_id(given_id)
        self._check_combination(rules, body, fields, location)
        if self._report.reported_count == reported_before:
            identity = self._fingerprint(canonical_json(body), location)
            draft = JobDraft(row_id, identity, body, location, self._takes or takes, given_seeds)
            draft.seeds = seed_range(rules) if rules.fields else None
            draft.image = image_as_written(body, fields)
            self.drafts.append(draft)
        else:
            self._report.bad_rows += 1

    def _check_combination(
        self, rules: ModelRules, body: dict[str, Any], fields: Mapping[str, Member], location: int
    ) -> None:
        if doubt := rules.combination_doubt(body):
            name, text = doubt
            self._report.add_warning(fields[name].value_location if name in fields else location, *text)

    def _read_params(self, member: Member | None) -> dict[str, Member]:
        if member is None:
            return {}
        if isinstance(member.value, MappingNode):
            return member.value.members()
        if isinstance(member.value, dict):
            location = member.value_location
            return {name: Member(value, location, location) for name, value in member.value.items()}
        self._report.add_problem(
            member.value_location,
            f"params is {_format_node(member.value)}",
            "it holds fields",
            "write params: {name: value}",
        )
        return {}

    def _read_model(self, fields: Mapping[str, Member], row_location: int) -> str:
        member = fields.get("model")
        value = BUILT_IN_MODEL if member is None else _scalar_or_empty(member.value)
        if self._model is not None and value == self._default_model:
            member, value = Member(self._model, row_location, row_location), self._model
        if member is None:
            return BUILT_IN_MODEL
        problem = UNKNOWN_MODEL_RULES.fields["model"].check("model", value)
        if problem:
            self._report.add_problem(member.value_location, *problem)
            return BUILT_IN_MODEL
        name = str(value)
        if name in self.models or name == BUILT_IN_MODEL:
            self.models.add(name)
            return name
        self.models.add(name)
        rules = self._rules.get(name)
        if rules is None:
            why = "its own rules are not known here, so its fields are sent as they stand"
            self._report.add_warning(member.value_location, f"model {format_value(name)} is not checked", why)
        elif not rules.model_exists:
            closest = closest_name(name, (BUILT_IN_MODEL,))
            suggestion = f"did you mean `{closest}`?" if closest else "see the vendor's list of models"
            self._report.add_problem(
                member.value_location,
                f"model {format_value(name)}",
                "the vendor has none of that name",
                suggestion,
            )
        return name

    def _rules_for(self, model: str) -> ModelRules:
        if model == BUILT_IN_MODEL:
            return VEO_RULES
        rules = self._rules.get(model, UNKNOWN_MODEL_RULES)
        return rules if rules.model_exists else UNKNOWN_MODEL_RULES

    def _check_known(self, name: str, member: Member, rules: ModelRules, in_params: set[str]) -> bool:
        """Return whether the field is known, or may be the model's own, which belongs under `params:`."""
        if name in rules.fields and (name in UNKNOWN_MODEL_RULES.fields or name in in_params):
            return True
        what, why = f"unknown field {format_value(name)}", f"{rules.model} takes no such field"
        closest = closest_name(name, (*rules.fields, "id", "params")) if name not in rules.fields else None
        suggestion = f"did you mean `{closest}`?" if closest else ""
        if rules.rejects_unknown_fields or (rules is not UNKNOWN_MODEL_RULES and closest):
            allowed = f"it takes {', '.join(rules.fields)}"
            self._report.add_problem(member.name_location, what, why, suggestion or allowed)
            return False
        if name not in in_params:
            why = "a model's own fields go under `params:`"
            self._report.add_problem(
                member.name_location, what, why, suggestion or f"write params: {{{name}: ...}}"
            )
            return False
        if rules is not UNKNOWN_MODEL_RULES:
            self._report.add_warning(
                member.name_location, what, f"the schema of {rules.model} has none of that name"
            )
        return True

    def _read_id(self, member: Member | None) -> str | None:
        if member is None:
            return None
        problem = check_id(_scalar_or_empty(member.value))
        if problem:
            self._report.add_problem(member.value_location, *problem)
            return None
        row_id = str(member.value)
        first_location = self._id_locations.setdefault(row_id, member.value_location)
        if first_location != member.value_location:
            why = f"line {first_location >> 32} has it"
            self._report.add_problem(
                member.value_location, f"id {format_value(row_id)} is taken", why, "choose another"
            )
        return row_id

    def _fingerprint(self, text: str, location: int) -> str:
        self._body_chars_left -= len(text)
        if self._body_chars_left < 0:
            why = "aliases and defaults multiply them"
            self._report.add_problem(location, "the jobs are more than 128 MB", why, "split the manifest")
            raise ParseAborted
        return fingerprint(text)


def _scalar_or_empty(value: Node) -> Any:
    """Return what a rule for a scalar can judge."""
    if isinstance(value, MappingNode):
        return {}
    return [] if isinstance(value, SequenceNode) else value


def _format_node(value: Node) -> str:
    return (
        format_bare(value.text)
        if isinstance(value, AmbiguousScalar)
        else format_value(_scalar_or_empty(value))
    )
