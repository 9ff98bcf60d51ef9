"""One row of any format -> a checked `Job`; the ids and fingerprints of all of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.expand import filled
from pipeline.manifest.fields import (
    KNOWN_MODEL,
    UNKNOWN,
    VEO,
    FieldRule,
    Kind,
    ModelRules,
    Words,
    blank_words,
    nearest,
)
from pipeline.manifest.invisible import is_blank
from pipeline.manifest.nodes import Map, Member, Node, Seq, TooMuch, Trap, Trapped, plain
from pipeline.manifest.problems import Report, Unreadable, show, show_bare
from pipeline.model import Job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ID_CHARS: Final = 200
_FINGERPRINT_CHARS: Final = 12
_BODY_CHARS: Final = 128 * 1024 * 1024
"""How much JSON all bodies together may be; aliases can make a small file ask for terabytes."""

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


@dataclass(slots=True)
class Draft:
    """A checked row that has no id yet, unless its author gave one."""

    given_id: str | None
    fingerprint: str
    body: dict[str, Any]
    at: int


class Rows:
    """Checks rows against `rules` (by model name) and collects the drafts of those that hold."""

    def __init__(
        self,
        report: Report,
        rules: Mapping[str, ModelRules],
        defaults: Mapping[str, Member],
        texts: Mapping[str, str] | None = None,
    ) -> None:
        self._report = report
        self._rules = rules
        self._texts = texts
        self._defaults = dict(defaults)
        self._params = self._members(self._defaults.pop("params", None))
        self._given: dict[str, int] = {}
        self._chars_left = _BODY_CHARS
        self.models: set[str] = set()
        self.drafts: list[Draft] = []

    def add(self, node: Node, at: int) -> None:
        """Check one row; what is wrong with it goes into the report."""
        if isinstance(node, Map):
            self.add_fields(node.members(), node.at)
        elif isinstance(node, Seq):
            self._add_pair(node)
        else:
            what = "a job that is nothing" if node is None else f"a job that is only {_shown(node)}"
            self._report.problem(at, what, "a job has an image and a prompt", "write [image_url, prompt]")

    def _add_pair(self, pair: Seq) -> None:
        if len(pair.items) != 2:
            what = f"a pair of {len(pair.items)} items"
            self._report.problem(
                pair.at, what, "the short form is the image and the prompt", "write [image_url, prompt]"
            )
            return
        names = ("image_url", "prompt")
        rows = zip(names, pair.items, pair.ats, strict=True)
        self.add_fields({name: Member(value, at, at) for name, value, at in rows}, pair.at)

    def add_fields(self, row: dict[str, Member], at: int) -> None:
        """Check the row whose own fields are `row` and whose place is `at`."""
        before = self._report.told
        given = row.pop("id", None)
        own_params = self._members(row.pop("params", None))
        for name in own_params.keys() & row.keys():
            self._report.problem(
                own_params[name].name_at, f"{name} is given twice", "once in params", "keep one"
            )
        fields = {**self._defaults, **self._params, **row, **own_params}
        in_params = self._params.keys() | own_params.keys()
        model = self._model(fields)
        rules = self._rules_of(model)
        body = {"model": model}
        for name, member in fields.items():
            if name != "model" and self._allowed(name, member, rules, in_params):
                body[name] = self._checked(name, member, rules.fields.get(name, _ANY))
        meant = {nearest(name, rules.fields) for name in fields.keys() - rules.fields.keys()}
        for name in rules.required:
            if name not in fields and name not in meant:
                self._report.problem(at, f"{name} is missing", "the model needs it", f"add {name}: ...")
        row_id = self._id(given)
        if self._report.told == before:
            self.drafts.append(Draft(row_id, self._fingerprint(rules, body, at), body, at))

    def _members(self, member: Member | None) -> dict[str, Member]:
        if member is None:
            return {}
        if isinstance(member.value, Map):
            return member.value.members()
        if isinstance(member.value, dict):
            at = member.value_at
            return {name: Member(value, at, at) for name, value in member.value.items()}
        self._report.problem(
            member.value_at,
            f"params is {_shown(member.value)}",
            "it holds fields",
            "write params: {name: value}",
        )
        return {}

    def _model(self, fields: Mapping[str, Member]) -> str:
        member = fields.get("model")
        if member is None:
            return KNOWN_MODEL
        words = UNKNOWN.fields["model"].trouble("model", _scalar(member.value))
        if words:
            self._report.problem(member.value_at, *words)
            return KNOWN_MODEL
        name = str(member.value)
        if name in self.models or name == KNOWN_MODEL:
            self.models.add(name)
            return name
        self.models.add(name)
        rules = self._rules.get(name)
        if rules is None:
            why = "its own rules are not known here, so its fields are sent as they stand"
            self._report.warning(member.value_at, f"model {show(name)} is not checked", why)
        elif not rules.listed:
            close = nearest(name, (KNOWN_MODEL,))
            meant = f"did you mean `{close}`?" if close else "see the vendor's list of models"
            self._report.problem(
                member.value_at, f"model {show(name)}", "the vendor has none of that name", meant
            )
        return name

    def _rules_of(self, model: str) -> ModelRules:
        if model == KNOWN_MODEL:
            return VEO
        rules = self._rules.get(model, UNKNOWN)
        return rules if rules.listed else UNKNOWN

    def _allowed(self, name: str, member: Member, rules: ModelRules, in_params: set[str]) -> bool:
        """Say whether the field is known, or may be the model's own, which has its place under `params:`."""
        if name in rules.fields and (name in UNKNOWN.fields or name in in_params):
            return True
        what, why = f"unknown field {show(name)}", f"{rules.model} takes no such field"
        close = nearest(name, (*rules.fields, "id", "params")) if name not in rules.fields else None
        meant = f"did you mean `{close}`?" if close else ""
        if rules.closed or (rules is not UNKNOWN and close):
            allowed = f"it takes {', '.join(rules.fields)}"
            self._report.problem(member.name_at, what, why, meant or allowed)
            return False
        if name not in in_params:
            why = "a model's own fields go under `params:`"
            self._report.problem(member.name_at, what, why, meant or f"write params: {{{name}: ...}}")
            return False
        if rules is not UNKNOWN:
            self._report.warning(member.name_at, what, f"the schema of {rules.model} has none of that name")
        return True

    def _checked(self, name: str, member: Member, rule: FieldRule) -> Any:
        value: Any = member.value
        if isinstance(value, Map | Seq):
            value = self._plain(name, member)
        elif name == "prompt" and isinstance(value, str) and "${" in value:
            value = self._filled(value, member)
        words = rule.trouble(name, value)
        if words:
            self._report.problem(member.value_at, *words)
        return value

    def _filled(self, prompt: str, member: Member) -> str:
        if self._texts is None:
            why = "there is no `vars:` section, so it is sent as it stands"
            self._report.warning(member.value_at, "the prompt has ${ in it", why)
            return prompt
        whole = filled(prompt, self._texts)
        if isinstance(whole, str):
            return whole
        self._report.problem(member.value_at, *whole)
        return prompt

    def _plain(self, name: str, member: Member) -> Any:
        try:
            return plain(member.value, member.value_at)
        except Trapped as met:
            self._report.problem(met.at, *_trap_words(name, met.trap))
        except TooMuch:
            self._report.problem(
                member.value_at, f"{name} is too large", "its aliases multiply", "write out what you need"
            )
        return {} if isinstance(member.value, Map) else []

    def _id(self, member: Member | None) -> str | None:
        if member is None:
            return None
        words = _id_trouble(_scalar(member.value))
        if words:
            self._report.problem(member.value_at, *words)
            return None
        row_id = str(member.value)
        first = self._given.setdefault(row_id, member.value_at)
        if first != member.value_at:
            why = f"line {first >> 32} has it"
            self._report.problem(member.value_at, f"id {show(row_id)} is taken", why, "choose another")
        return row_id

    def _fingerprint(self, rules: ModelRules, body: dict[str, Any], at: int) -> str:
        # Only built-in defaults are written out: a job's identity must not hang on what a catalogue says.
        text = _canonical(VEO.normal(body) if rules is VEO else body)
        self._chars_left -= len(text)
        if self._chars_left < 0:
            why = "aliases and defaults multiply them"
            self._report.problem(at, "the jobs are more than 128 MB", why, "split the manifest")
            raise Unreadable
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:_FINGERPRINT_CHARS]


_ANY: Final = FieldRule(Kind.ANY, nullable=True)
_ID: Final = FieldRule(Kind.TEXT, max_size=ID_CHARS)


def _scalar(value: Node) -> Any:
    """Return what a rule for a scalar can judge."""
    if isinstance(value, Map):
        return {}
    return [] if isinstance(value, Seq) else value


def _shown(value: Node) -> str:
    return show_bare(value.text) if isinstance(value, Trap) else show(_scalar(value))


def _trap_words(name: str, trap: Trap) -> Words:
    why = f"YAML reads that as {trap.reads_as}"
    return (
        f"{show_bare(trap.text)} in {name} without quotes",
        why,
        f'write "{show_bare(trap.text)}" or a plain value',
    )


def _id_trouble(value: Any) -> Words | None:
    words = _ID.trouble("id", value)
    if words:
        return words
    if is_blank(value):
        return blank_words("id", value, "it names the row and its files", "write a name or remove the line")
    if not value.isprintable():
        return (
            f"id is {show(value)}",
            "it holds characters that cannot be printed",
            "use letters, digits and dashes",
        )
    return None


def jobs_of(drafts: Sequence[Draft]) -> list[Job]:
    """Give every draft its id and place in the order.

    A row without an id is named by its content and, from the second of the same content on, an
    occurrence number, so that moving or adding other rows renames nothing.
    """
    taken = {draft.given_id for draft in drafts}
    seen: dict[str, int] = {}
    jobs: list[Job] = []
    for index, draft in enumerate(drafts):
        row_id = draft.given_id or _free_id(draft.fingerprint, seen, taken)
        model = draft.body["model"]
        line, column = draft.at >> 32, draft.at & 0xFFFFFFFF
        jobs.append(Job(row_id, draft.fingerprint, index, model, draft.body, line, column))
    return jobs


def _free_id(stem: str, seen: dict[str, int], taken: set[str | None]) -> str:
    while True:
        seen[stem] = number = seen.get(stem, 0) + 1
        row_id = stem if number == 1 else f"{stem}-{number}"
        if row_id not in taken:
            return row_id
