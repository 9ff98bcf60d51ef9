"""What a model takes: field by field, the rule and the words for breaking it.

`google/veo-3.1-i2v-fast` is built in (its published request schema); the rules of other models are made
from theirs by `manifest.openapi`. Knows no place in any file and no network.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote, urlsplit, urlunsplit

from pipeline.manifest.invisible import is_blank, unseen
from pipeline.manifest.nodes import Trap
from pipeline.manifest.problems import show, show_bare

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KNOWN_MODEL: Final = "google/veo-3.1-i2v-fast"
PROMPT_CHARS: Final = 32_768
"""The vendor states no limit; a prompt beyond this is a file in the wrong place."""

URL_CHARS: Final = 8_192

Words: TypeAlias = tuple[str, str, str]
"""What, why, what instead."""


class Kind(StrEnum):
    TEXT = "text"
    URL = "url"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    LIST = "list"
    OBJECT = "object"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class FieldRule:
    """One field of a request. `choices` are compared as they are, or case-folded when `fold`."""

    kind: Kind
    choices: tuple[Any, ...] = ()
    default: Any = None
    fold: bool = False
    minimum: float | None = None
    maximum: float | None = None
    min_size: int | None = None
    max_size: int | None = None
    items: FieldRule | None = None
    nullable: bool = False

    def trouble(self, name: str, value: Any) -> Words | None:
        """Return the words for what is wrong with `value` (plain, or a `Trap`), None when it is right."""
        if isinstance(value, Trap):
            return self._trapped(name, value)
        if value is None:
            if self.nullable:
                return None
            return f"{name} has no value", "nothing stands after the colon", "give one or remove the line"
        if type(value) not in _TYPES[self.kind]:
            return self._mistyped(name, value)
        if (
            self.choices
            and (value.lower() if self.fold and type(value) is str else value) not in self.choices
        ):
            return self._unlisted(name, value)
        check = _CHECKS.get(self.kind)
        return check(self, name, value) if check is not None else None

    def takes_text(self) -> bool:
        return self.kind in {Kind.TEXT, Kind.URL}

    def _trapped(self, name: str, trap: Trap) -> Words:
        why = f"YAML reads that as {trap.reads_as}"
        if self.kind is Kind.BOOLEAN:
            return (
                f"{name} is {show_bare(trap.text)}",
                f"it means {trap.reads_as} to some readers only",
                "write true or false",
            )
        if self.kind in {Kind.INTEGER, Kind.NUMBER}:
            return f"{name} is {show_bare(trap.text)}", why, f"write {self._example()}"
        return f"{name} is {show_bare(trap.text)} without quotes", why, f'write "{show_bare(trap.text)}"'

    def _mistyped(self, name: str, value: Any) -> Words:
        what = f"{name} is {show(value)}"
        if self.kind is Kind.BOOLEAN:
            return what, "it is a switch", "write true or false, without quotes"
        if self.kind in {Kind.INTEGER, Kind.NUMBER}:
            why = f"it must be {'a whole number' if self.kind is Kind.INTEGER else 'a number'}"
            return what, why, f"write {self._example()}{', without quotes' if isinstance(value, str) else ''}"
        if self.kind in {Kind.LIST, Kind.OBJECT}:
            shape = "[one, two]" if self.kind is Kind.LIST else "{name: value}"
            return what, f"it must be {_ARTICLE[self.kind]}", f"write {name}: {shape}"
        instead = f"write {self._example()}" if self.choices else "write text"
        if not isinstance(value, list | dict):
            instead = f"write {self._example()}" if self.choices else f'write it in quotes: "{show(value)}"'
        return what, "it must be text", instead

    def _unlisted(self, name: str, value: Any) -> Words:
        allowed = listed(show(choice) for choice in self.choices)
        return (
            f"{name} is {show(value)}",
            f"the model takes {allowed}",
            f"write {nearest_choice(value, self.choices)}",
        )

    def _example(self) -> str:
        if self.choices:
            return listed(show(choice) for choice in self.choices)
        return "a plain number such as 8"


_TYPES: Final[Mapping[Kind, frozenset[type]]] = MappingProxyType(
    {
        Kind.TEXT: frozenset({str}),
        Kind.URL: frozenset({str}),
        Kind.INTEGER: frozenset({int}),
        Kind.NUMBER: frozenset({int, float}),
        Kind.BOOLEAN: frozenset({bool}),
        Kind.LIST: frozenset({list}),
        Kind.OBJECT: frozenset({dict}),
        Kind.ANY: frozenset({str, int, float, bool, list, dict}),
    }
)
_ARTICLE: Final = {Kind.LIST: "a list", Kind.OBJECT: "a mapping"}
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NOT_IN_URLS: Final = re.compile(r"[{}|^`\"<>\\]")
_URL: Final = re.compile(
    r"https?://(?:[^\s/?#@\\]*@)?(?:\[[0-9a-fA-F:.]+\]|[^\s/?#@:\\\[\]\"<>]+)"
    r"(?::(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
    r"(?:[/?#][^\s\x00-\x1f\x7f]*)?",
    re.IGNORECASE,
)


def _text_trouble(rule: FieldRule, name: str, value: str) -> Words | None:
    if _CONTROL.search(value):
        return f"{name} is {show(value)}", "it holds a control character", "remove that character"
    if rule.min_size and is_blank(value):
        return blank_words(name, value, "the model needs words", "write some")
    if rule.min_size is not None and len(value) < rule.min_size:
        return f"{name} has {len(value)} characters", f"it needs {rule.min_size}", "write more"
    if rule.max_size is not None and len(value) > rule.max_size:
        return f"{name} has {len(value):,} characters", f"{rule.max_size:,} are the most", "shorten it"
    return None


def blank_words(name: str, value: str, why: str, instead: str) -> Words:
    """Say that a text is blank, and by which characters if they cannot be seen in an editor."""
    hidden = unseen(value)
    return f"{name} is blank", f"it holds only {hidden}, which nobody sees" if hidden else why, instead


def _url_trouble(rule: FieldRule, name: str, value: str) -> Words | None:
    if _URL.fullmatch(value) and len(value) <= URL_CHARS:
        return _spelling_trouble(name, value)
    what = f"{name} is {show(value)}" if value.strip() else f"{name} is blank"
    if len(value) > URL_CHARS and not value.startswith("data:"):
        return f"{name} has {len(value):,} characters", f"{URL_CHARS:,} are the most", "give a shorter URL"
    if re.match(r"https?:", value, re.IGNORECASE):
        why = (
            "it has a space in it"
            if re.search(r"\s", value.strip())
            else "it names no host that can be reached"
        )
        return what, why, "write https://host/path, with spaces as %20"
    return what, "the vendor fetches the image from the web", "upload it and give its http(s) URL"


def _spelling_trouble(name: str, value: str) -> Words | None:
    """Refuse what browsers show and RFC 3986 does not allow: the vendor's schema says `format: uri`."""
    if value.isascii() and not _NOT_IN_URLS.search(value):
        return None
    why = "a URL is written in ASCII, all else as % and two digits"
    return f"{name} is {show(value)}", why, f"write {_spelled(value)}"


def _spelled(url: str) -> str:
    """Return an address as RFC 3986 spells it; what is encoded already stays."""
    parts = urlsplit(url)
    try:
        host = parts.netloc.encode("idna").decode("ascii")
    except UnicodeError:
        host = quote(parts.netloc, safe="@:[]")
    path, query, fragment = (
        quote(part, safe="/:@!$&'()*+,;=%?~-._") for part in (parts.path, parts.query, parts.fragment)
    )
    return urlunsplit((parts.scheme, host, path, query, fragment))


def _number_trouble(rule: FieldRule, name: str, value: float) -> Words | None:
    if rule.minimum is not None and value < rule.minimum:
        return f"{name} is {show(value)}", f"the least is {rule.minimum:g}", f"write {rule.minimum:g} or more"
    if rule.maximum is not None and value > rule.maximum:
        return f"{name} is {show(value)}", f"the most is {rule.maximum:g}", f"write {rule.maximum:g} or less"
    return None


def _list_trouble(rule: FieldRule, name: str, value: list[Any]) -> Words | None:
    if rule.min_size is not None and len(value) < rule.min_size:
        return f"{name} has {len(value)} items", f"it needs {rule.min_size}", "add some"
    if rule.max_size is not None and len(value) > rule.max_size:
        return f"{name} has {len(value)} items", f"{rule.max_size} are the most", "remove some"
    if rule.items is None:
        return None
    found = (rule.items.trouble(f"{name}[{n}]", item) for n, item in enumerate(value))
    return next((words for words in found if words), None)


_CHECKS: Final[Mapping[Kind, Any]] = MappingProxyType(
    {
        Kind.TEXT: _text_trouble,
        Kind.URL: _url_trouble,
        Kind.INTEGER: _number_trouble,
        Kind.NUMBER: _number_trouble,
        Kind.LIST: _list_trouble,
    }
)


@dataclass(frozen=True, slots=True)
class ModelRules:
    """What one model takes. `closed` says that a field without a rule is refused for certain, `listed`
    that the vendor has (or may have) such a model at all."""

    model: str
    fields: Mapping[str, FieldRule]
    required: tuple[str, ...] = ()
    closed: bool = False
    listed: bool = True
    defaults: Mapping[str, Any] = field(init=False)
    folded: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        filled = {name: rule.default for name, rule in self.fields.items() if rule.default is not None}
        object.__setattr__(self, "defaults", MappingProxyType(filled))
        folded = tuple(name for name, rule in self.fields.items() if rule.fold)
        object.__setattr__(self, "folded", folded)

    def normal(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return `body` with the model's defaults written out: two bodies that ask for the same agree."""
        whole = {**self.defaults, **body}
        for name in self.folded:
            if isinstance(whole.get(name), str):
                whole[name] = whole[name].lower()
        return whole


_PROMPT: Final = FieldRule(Kind.TEXT, min_size=1, max_size=PROMPT_CHARS)
_IMAGE: Final = FieldRule(Kind.URL)

VEO: Final = ModelRules(
    model=KNOWN_MODEL,
    fields=MappingProxyType(
        {
            "model": FieldRule(Kind.TEXT, choices=(KNOWN_MODEL,)),
            "prompt": _PROMPT,
            "image_url": _IMAGE,
            "aspect_ratio": FieldRule(Kind.TEXT, choices=("16:9", "9:16")),
            "duration": FieldRule(Kind.INTEGER, choices=(4, 6, 8), default=8),
            "resolution": FieldRule(Kind.TEXT, choices=("720p", "1080p"), default="1080p"),
            "generate_audio": FieldRule(Kind.BOOLEAN, default=True),
            "provider": FieldRule(Kind.TEXT, choices=("auto", "google", "fal"), default="auto", fold=True),
        }
    ),
    required=("image_url", "prompt"),
    closed=True,
)
"""The model's request schema at https://docs.aimlapi.com; `provider` ignores case there."""

UNKNOWN: Final = ModelRules(
    model="",
    fields=MappingProxyType(
        {
            "model": FieldRule(Kind.TEXT, min_size=1, max_size=200),
            "prompt": _PROMPT,
            "image_url": _IMAGE,
            **dict.fromkeys(
                ("aspect_ratio", "duration", "resolution", "generate_audio", "provider"), FieldRule(Kind.ANY)
            ),
        }
    ),
)
"""What holds for any model of which nothing is known: names are names, prompts text, images on the web."""


def listed(words: Iterable[str]) -> str:
    """Join words as a sentence does: `a, b or c`."""
    *head, last = list(words)
    return f"{', '.join(head)} or {last}" if head else last


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that `word` was probably meant to be."""
    return _nearest(word[:60], tuple(names))


@lru_cache(maxsize=1024)
def _nearest(word: str, names: tuple[str, ...]) -> str | None:
    folded = {name.lower().replace("-", "_"): name for name in names}
    close = difflib.get_close_matches(word.lower().replace("-", "_").strip(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def nearest_choice(value: Any, choices: tuple[Any, ...]) -> str:
    """Return the choice closest to `value`, as it would be written."""
    if isinstance(value, int | float) and all(isinstance(choice, int | float) for choice in choices):
        return show(min(choices, key=lambda choice: abs(choice - value)))
    by_text = {str(choice).lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(value)[:60].lower(), by_text, n=1, cutoff=0.4)
    return show(by_text[close[0]]) if close else "one of them"
