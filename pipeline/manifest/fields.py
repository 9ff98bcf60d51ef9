"""What a model takes: field by field, the rule, and the message for breaking it.

`google/veo-3.1-i2v-fast` is built in (its published request schema); the rules of other models are made
from theirs by `manifest.openapi`. Knows no positions in files and no network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.invisible_characters import invisible_code_points, is_blank
from pipeline.manifest.local_files import is_local
from pipeline.manifest.nodes import AmbiguousScalar
from pipeline.manifest.problems import ProblemText, format_bare, format_value
from pipeline.manifest.suggestions import closest_choice, join_or
from pipeline.manifest.urls import url_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

BUILT_IN_MODEL: Final = "google/veo-3.1-i2v-fast"
MAX_PROMPT_CHARS: Final = 32_768
"""The vendor states no limit; a prompt beyond this is a file in the wrong place."""


class FieldKind(StrEnum):
    TEXT = "text"
    URL = "url"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    LIST = "list"
    OBJECT = "object"
    ANY = "any"


class MediaKind(StrEnum):
    """What a field that takes an address holds behind it."""

    IMAGE = "image"
    VIDEO = "video"


_MEDIA_NAME: Final = re.compile(r"(?:^|_)(image|video|frame)s?(?:_(?:tail|list))?(?:_urls?)?$")


def media_kind(name: str, description: str = "") -> MediaKind | None:
    """Return what a field holds by its name, or else by its schema's description: `last_image_url`, ..."""
    found = _MEDIA_NAME.search(name) or re.search(r"\b(image|video)\b", description.lower())
    return None if found is None else MediaKind.VIDEO if found[1] == "video" else MediaKind.IMAGE


@dataclass(frozen=True, slots=True)
class FieldRule:
    """One field of a request. `choices` are compared exactly, or regardless of case with `ignore_case`.

    `media` says that it takes an image or a video, `by_value` that the schema takes that as Base64, too.
    """

    kind: FieldKind
    choices: tuple[Any, ...] = ()
    default: Any = None
    ignore_case: bool = False
    minimum: float | None = None
    maximum: float | None = None
    min_size: int | None = None
    max_size: int | None = None
    items: FieldRule | None = None
    nullable: bool = False
    media: MediaKind | None = None
    by_value: bool = False

    def check(self, name: str, value: Any) -> ProblemText | None:
        """Return what is wrong with `value` (plain, or an `AmbiguousScalar`), None when it is right."""
        if isinstance(value, AmbiguousScalar):
            return self._ambiguous_problem(name, value)
        if value is None:
            if self.nullable:
                return None
            return f"{name} has no value", "nothing stands after the colon", "give one or remove the line"
        if type(value) not in _TYPES[self.kind]:
            return self._type_problem(name, value)
        if (
            self.choices
            and (value.lower() if self.ignore_case and type(value) is str else value) not in self.choices
        ):
            return self._choice_problem(name, value)
        check_kind = _CHECKS.get(self.kind)
        return check_kind(self, name, value) if check_kind is not None else None

    def _ambiguous_problem(self, name: str, scalar: AmbiguousScalar) -> ProblemText:
        why = f"YAML reads that as {scalar.yaml_meaning}"
        if self.kind is FieldKind.BOOLEAN:
            return (
                f"{name} is {format_bare(scalar.text)}",
                f"it means {scalar.yaml_meaning} to some readers only",
                "write true or false",
            )
        if self.kind in {FieldKind.INTEGER, FieldKind.NUMBER}:
            return f"{name} is {format_bare(scalar.text)}", why, f"write {self._example()}"
        return (
            f"{name} is {format_bare(scalar.text)} without quotes",
            why,
            f'write "{format_bare(scalar.text)}"',
        )

    def _type_problem(self, name: str, value: Any) -> ProblemText:
        what = f"{name} is {format_value(value)}"
        if self.kind is FieldKind.BOOLEAN:
            return what, "it is a switch", "write true or false, without quotes"
        if self.kind in {FieldKind.INTEGER, FieldKind.NUMBER}:
            why = f"it must be {'a whole number' if self.kind is FieldKind.INTEGER else 'a number'}"
            return what, why, f"write {self._example()}{', without quotes' if isinstance(value, str) else ''}"
        if self.kind in {FieldKind.LIST, FieldKind.OBJECT}:
            shape = "[one, two]" if self.kind is FieldKind.LIST else "{name: value}"
            return what, f"it must be {_CONTAINER_NAMES[self.kind]}", f"write {name}: {shape}"
        instead = f"write {self._example()}" if self.choices else "write text"
        if not isinstance(value, list | dict):
            instead = (
                f"write {self._example()}" if self.choices else f'write it in quotes: "{format_value(value)}"'
            )
        return what, "it must be text", instead

    def _choice_problem(self, name: str, value: Any) -> ProblemText:
        allowed = join_or(format_value(choice) for choice in self.choices)
        return (
            f"{name} is {format_value(value)}",
            f"the model takes {allowed}",
            f"write {closest_choice(value, self.choices)}",
        )

    def _example(self) -> str:
        if self.choices:
            return join_or(format_value(choice) for choice in self.choices)
        return "a plain number such as 8"


_TYPES: Final[Mapping[FieldKind, frozenset[type]]] = MappingProxyType(
    {
        FieldKind.TEXT: frozenset({str}),
        FieldKind.URL: frozenset({str}),
        FieldKind.INTEGER: frozenset({int}),
        FieldKind.NUMBER: frozenset({int, float}),
        FieldKind.BOOLEAN: frozenset({bool}),
        FieldKind.LIST: frozenset({list}),
        FieldKind.OBJECT: frozenset({dict}),
        FieldKind.ANY: frozenset({str, int, float, bool, list, dict}),
    }
)
_CONTAINER_NAMES: Final = {FieldKind.LIST: "a list", FieldKind.OBJECT: "a mapping"}
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def _check_text(rule: FieldRule, name: str, value: str) -> ProblemText | None:
    if _CONTROL_CHARACTER.search(value):
        return f"{name} is {format_value(value)}", "it holds a control character", "remove that character"
    if rule.min_size and is_blank(value):
        return blank_problem(name, value, "the model needs a prompt", "write one")
    if rule.min_size is not None and len(value) < rule.min_size:
        return f"{name} has {len(value)} characters", f"it needs {rule.min_size}", "write more"
    if rule.max_size is not None and len(value) > rule.max_size:
        return f"{name} has {len(value):,} characters", f"{rule.max_size:,} are the most", "shorten it"
    return None


def blank_problem(name: str, value: str, why: str, instead: str) -> ProblemText:
    """Say that a text is blank, and by which characters if they cannot be seen in an editor."""
    invisible = invisible_code_points(value)
    return f"{name} is blank", f"it holds only {invisible}, which nobody sees" if invisible else why, instead


def _check_url(rule: FieldRule, name: str, value: str) -> ProblemText | None:
    return None if rule.media and is_local(value) else url_problem(name, value)


def _check_number(rule: FieldRule, name: str, value: float) -> ProblemText | None:
    what = f"{name} is {format_value(value)}"
    if rule.minimum is not None and value < rule.minimum:
        return what, f"the least is {rule.minimum:g}", f"write {rule.minimum:g} or more"
    if rule.maximum is not None and value > rule.maximum:
        return what, f"the most is {rule.maximum:g}", f"write {rule.maximum:g} or less"
    return None


def _check_list(rule: FieldRule, name: str, value: list[Any]) -> ProblemText | None:
    if rule.min_size is not None and len(value) < rule.min_size:
        return f"{name} has {len(value)} items", f"it needs {rule.min_size}", "add some"
    if rule.max_size is not None and len(value) > rule.max_size:
        return f"{name} has {len(value)} items", f"{rule.max_size} are the most", "remove some"
    if rule.items is None:
        return None
    item_problems = (rule.items.check(f"{name}[{n}]", item) for n, item in enumerate(value))
    return next((problem for problem in item_problems if problem), None)


_CHECKS: Final[Mapping[FieldKind, Any]] = MappingProxyType(
    {
        FieldKind.TEXT: _check_text,
        FieldKind.URL: _check_url,
        FieldKind.INTEGER: _check_number,
        FieldKind.NUMBER: _check_number,
        FieldKind.LIST: _check_list,
    }
)


@dataclass(frozen=True, slots=True)
class ModelRules:
    """What one model takes.

    `rejects_unknown_fields`: a field without a rule is certain to be refused. `model_exists`: the vendor has
    (or may have) such a model at all.
    """

    model: str
    fields: Mapping[str, FieldRule]
    required: tuple[str, ...] = ()
    rejects_unknown_fields: bool = False
    model_exists: bool = True
    defaults: Mapping[str, Any] = field(init=False)
    case_insensitive_fields: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        defaults = {name: rule.default for name, rule in self.fields.items() if rule.default is not None}
        object.__setattr__(self, "defaults", MappingProxyType(defaults))
        case_insensitive = tuple(name for name, rule in self.fields.items() if rule.ignore_case)
        object.__setattr__(self, "case_insensitive_fields", case_insensitive)

    def combination_doubt(self, body: Mapping[str, Any]) -> tuple[str, ProblemText] | None:
        """Return (field, why) when fields that are right by themselves will probably not do together."""
        complete = self.with_defaults(body)
        seconds = complete.get("duration")
        if not self.model.startswith("google/veo") or complete.get("resolution") != "1080p" or seconds == 8:
            return None
        if not isinstance(seconds, int):
            return None
        what = f"1080p with {seconds} seconds"
        return "duration", (
            what,
            "Veo renders 1080p at 8 seconds only",
            "write duration: 8 or resolution: 720p",
        )

    def with_defaults(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return `body` with the model's defaults written out: two bodies that ask for the same agree."""
        complete = {**self.defaults, **body}
        for name in self.case_insensitive_fields:
            if isinstance(complete.get(name), str):
                complete[name] = complete[name].lower()
        return complete


_PROMPT_RULE: Final = FieldRule(FieldKind.TEXT, min_size=1, max_size=MAX_PROMPT_CHARS)
_IMAGE_URL_RULE: Final = FieldRule(FieldKind.URL, media=MediaKind.IMAGE)

VEO_RULES: Final = ModelRules(
    model=BUILT_IN_MODEL,
    fields=MappingProxyType(
        {
            "model": FieldRule(FieldKind.TEXT, choices=(BUILT_IN_MODEL,)),
            "prompt": _PROMPT_RULE,
            "image_url": _IMAGE_URL_RULE,
            "aspect_ratio": FieldRule(FieldKind.TEXT, choices=("16:9", "9:16")),
            "duration": FieldRule(FieldKind.INTEGER, choices=(4, 6, 8), default=8),
            "resolution": FieldRule(FieldKind.TEXT, choices=("720p", "1080p"), default="1080p"),
            "generate_audio": FieldRule(FieldKind.BOOLEAN, default=True),
            "provider": FieldRule(
                FieldKind.TEXT, choices=("auto", "google", "fal"), default="auto", ignore_case=True
            ),
        }
    ),
    required=("image_url", "prompt"),
    rejects_unknown_fields=True,
)
"""The model's request schema at https://docs.aimlapi.com; `provider` ignores case there."""

UNKNOWN_MODEL_RULES: Final = ModelRules(
    model="",
    fields=MappingProxyType(
        {
            "model": FieldRule(FieldKind.TEXT, min_size=1, max_size=200),
            "prompt": _PROMPT_RULE,
            "image_url": _IMAGE_URL_RULE,
            **dict.fromkeys(
                VEO_RULES.fields.keys() - {"model", "prompt", "image_url"}, FieldRule(FieldKind.ANY)
            ),
        }
    ),
)
"""What holds for any model of which nothing is known."""
