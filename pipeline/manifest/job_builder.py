"""One row of any format -> a checked `Job`; the ids and fingerprints of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.compact_rows import slot_constructor
from pipeline.manifest.identity import canonical_json, fingerprint
from pipeline.manifest.jobs import JobDraft, check_id, pop_seeds, pop_takes, seed_range, takes_of
from pipeline.manifest.local_files import LocalFiles, image_as_written, rename_image
from pipeline.manifest.nodes import AmbiguousScalar, MappingNode, Member, Node, SequenceNode, scalar_or_empty
from pipeline.manifest.problems import ParseAborted, ProblemReport, format_bare, format_value
from pipeline.manifest.repeated_rows import RepeatedRow, RepeatedRows
from pipeline.manifest.row_rules import RowRules
from pipeline.manifest.suggestions import closest_name
from pipeline.manifest.values import any_field, check_value
from pipeline.model import Job
from pipeline.row_keys import canonical_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.manifest.fields import ModelRules

_MAX_BODY_CHARS_TOTAL: Final = 128 * 1024 * 1024
"""How much JSON all bodies together may be; aliases can make a small file ask for terabytes."""

_make_job: Final = slot_constructor(Job)


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
        self._variables = variables
        self._defaults = dict(defaults)
        self._params = self._read_params(self._defaults.pop("params", None))
        rename_image(self._defaults, self._report)
        self._row_rules = RowRules(rules, self._defaults.get("model"), model, report)
        self._takes = takes
        self.files = LocalFiles((folder or Path()).absolute())
        self._id_locations: dict[str, int] = {}
        self._repeated = RepeatedRows()
        self._body_chars_left = _MAX_BODY_CHARS_TOTAL
        self.drafts: list[JobDraft] = []

    def add(self, node: Node, location: int) -> None:
        """Check one row; what is wrong with it goes into the report."""
        if isinstance(node, MappingNode):
            repeated = self._repeated.match(node)
            if repeated is None:
                self._add_mapping(node, location)
            else:
                self._add_repeated(node, repeated, location)
        elif isinstance(node, SequenceNode):
            self._add_pair(node, location)
        else:
            what = "a job that is nothing" if node is None else f"a job that is only {_format_node(node)}"
            self._report.add_problem(
                location, what, "a job has an image and a prompt", "write [image_url, prompt]"
            )

    def _add_mapping(self, node: MappingNode, location: int) -> None:
        report, drafts = self._report, len(self.drafts)
        findings_before = report.reported_count + report.warned_count
        self.add_fields(node.members(), location)
        if len(self.drafts) > drafts and report.reported_count + report.warned_count == findings_before:
            draft = self.drafts[-1]
            self._repeated.learn(node, draft, self._row_rules.of(draft.body["model"]))

    def _add_repeated(self, node: MappingNode, row: RepeatedRow, location: int) -> None:
        """Add a row of which only the id is still to be checked."""
        reported_before, index = self._report.reported_count, row.id_index
        row_id = None
        if index is not None:
            id_location = node.value_locations[index]
            row_id = self._read_id(Member(node.values[index], id_location, id_location), location)
        if self._report.reported_count > reported_before:
            self._report.bad_rows += 1
            return
        identity = self._fingerprint(row.canonical, location)
        first, image, prompt = row.draft, node.values[row.image_index], node.values[row.prompt_index]
        body = {**first.body, "image_url": image, "prompt": prompt}
        self.drafts.append(
            JobDraft(row_id, identity, body, location, first.takes, first.given_seeds, first.seeds)
        )

    def _add_pair(self, pair: SequenceNode, location: int) -> None:
        if len(pair.items) != 2:
            what = f"a pair of {len(pair.items)} items"
            self._report.add_problem(
                pair.location, what, "the short form is the image and the prompt", "write [image_url, prompt]"
            )
            return
        names = ("image_url", "prompt")
        rows = zip(names, pair.items, pair.locations, strict=True)
        self.add_fields({name: Member(value, at, at) for name, value, at in rows}, location)

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
        model = self._row_rules.model_of(fields, location)
        rules = self._row_rules.of(model)
        given_seeds = pop_seeds(fields, rules, self._report)
        body = {"model": model}
        for name, member in fields.items():
            if name != "model" and self._row_rules.is_known(name, member, rules, in_params):
                rule = rules.fields.get(name) or any_field(name)
                value = check_value(name, member, rule, self._variables, self._report)
                body[name] = self.files.replace(model, name, value, rule, member.value_location, self._report)
        likely_meant = {closest_name(name, rules.fields) for name in fields.keys() - rules.fields.keys()}
        for name in rules.required:
            if name not in fields and name not in likely_meant:
                self._report.add_problem(
                    location, f"{name} is missing", "the model needs it", f"add {name}: ..."
                )
        row_id = self._read_id(given_id, location)
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

    def _read_id(self, member: Member | None, row_location: int) -> str | None:
        if member is None:
            return None
        # An alias, or a merge key, brings an id that stands before the row.
        location = max(member.value_location, row_location)
        problem = check_id(scalar_or_empty(member.value))
        if problem:
            self._report.add_problem(location, *problem)
            return None
        row_id = str(member.value)
        first_location = self._id_locations.setdefault(canonical_id(row_id), location)
        if first_location != location:
            why = f"line {first_location >> 32} has it"
            self._report.add_problem(location, f"id {format_value(row_id)} is taken", why, "choose another")
        return row_id

    def jobs(self) -> list[Job]:
        """Return the jobs of the rows that hold: each with its id and its index, and every take of it.

        A row without an id is named by its content and, from the second of the same content on, an
        occurrence number, so that moving or adding other rows renames nothing.
        """
        given_ids = {canonical_id(draft.given_id) for draft in self.drafts if draft.given_id}
        occurrences: dict[str, int] = {}
        jobs: list[Job] = []
        for draft in self.drafts:
            row_id = draft.given_id or _unique_id(draft.fingerprint, occurrences, given_ids)
            model = draft.body["model"]
            line, column = draft.location >> 32, draft.location & 0xFFFFFFFF
            index, image = len(jobs), draft.image
            row = _make_job(
                row_id, draft.fingerprint, index, model, draft.body, line, column, 1, draft.seeds, image
            )
            if draft.takes == 1:
                jobs.append(row)
            else:
                jobs += takes_of(row, draft.takes, draft.given_seeds)
        return jobs

    @property
    def models(self) -> frozenset[str]:
        """The models that rows name."""
        return frozenset(self._row_rules.models)

    def _fingerprint(self, text: str, location: int) -> str:
        self._body_chars_left -= len(text)
        if self._body_chars_left < 0:
            why = "aliases and defaults multiply them"
            self._report.add_problem(location, "the jobs are more than 128 MB", why, "split the manifest")
            raise ParseAborted
        return fingerprint(text)


def _unique_id(fingerprint: str, occurrences: dict[str, int], taken: set[str]) -> str:
    while True:
        occurrences[fingerprint] = number = occurrences.get(fingerprint, 0) + 1
        row_id = fingerprint if number == 1 else f"{fingerprint}-{number}"
        if row_id not in taken:
            return row_id


def _format_node(value: Node) -> str:
    return (
        format_bare(value.text)
        if isinstance(value, AmbiguousScalar)
        else format_value(scalar_or_empty(value))
    )
