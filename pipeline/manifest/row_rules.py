"""Which model a row is for, which rules hold for it, and which fields it may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.manifest.fields import BUILT_IN_MODEL, UNKNOWN_MODEL_RULES, VEO_RULES, ModelRules
from pipeline.manifest.nodes import Member, scalar_or_empty
from pipeline.manifest.problems import ProblemReport, format_value
from pipeline.manifest.suggestions import closest_name

if TYPE_CHECKING:
    from collections.abc import Mapping


class RowRules:
    """Chooses among `rules` (by model name). `model` replaces the `default` one, wherever a row has that."""

    def __init__(
        self,
        rules: Mapping[str, ModelRules],
        default: Member | None,
        model: str | None,
        report: ProblemReport,
    ) -> None:
        self._rules = rules
        self._default_model = BUILT_IN_MODEL if default is None else str(scalar_or_empty(default.value))
        self._model = model
        self._report = report
        self.models: set[str] = set()

    def model_of(self, fields: Mapping[str, Member], row_location: int) -> str:
        """Return the model that the row at `row_location` is for; a wrong one goes into the report."""
        member = fields.get("model")
        value = BUILT_IN_MODEL if member is None else scalar_or_empty(member.value)
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

    def of(self, model: str) -> ModelRules:
        """Return what holds for `model`, as far as it is known."""
        if model == BUILT_IN_MODEL:
            return VEO_RULES
        rules = self._rules.get(model, UNKNOWN_MODEL_RULES)
        return rules if rules.model_exists else UNKNOWN_MODEL_RULES

    def is_known(self, name: str, member: Member, rules: ModelRules, in_params: set[str]) -> bool:
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
