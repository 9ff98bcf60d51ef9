"""Rows from fewer words: `matrix:` (every image with every prompt) and `${name}` from `vars:`.

Both happen before a row is checked, so that what is checked is what is sent; both are bounded.
"""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.fields import PROMPT_CHARS, Words, nearest
from pipeline.manifest.nodes import Map, Member, Node, Seq, TooMuch, Trapped, plain
from pipeline.manifest.problems import Report, show

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROWS: Final = 200_000
"""How many rows a matrix may become. Twice the largest batch that was ever measured."""

AXES: Final = {"image": "image_url", "images": "image_url", "prompts": "prompt"}
"""Other names for the two lists that every matrix has."""

_REFERENCE: Final = re.compile(r"\$?\$\{([^{}\n]{0,80})\}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def read_vars(section: Map | None, report: Report) -> dict[str, str] | None:
    """Return the texts that `${name}` stands for; None when the manifest has no `vars:` at all."""
    if section is None:
        return None
    texts: dict[str, str] = {}
    for name, member in section.members().items():
        if not _NAME.fullmatch(name):
            why = "names are letters, digits, - and _"
            report.problem(member.name_at, f"the variable {show(name)}", why, "write name: text")
        elif isinstance(member.value, str):
            texts[name] = member.value
            if any(not match[0].startswith("$$") for match in _REFERENCE.finditer(member.value)):
                why = "variables are not looked up in variables"
                report.problem(member.value_at, f"the variable {name} holds a variable", why, "write it out")
        else:
            report.problem(
                member.value_at, f"the variable {name} is no text", "", 'write it in quotes: "..."'
            )
            texts[name] = ""
    return texts


def filled(prompt: str, texts: Mapping[str, str]) -> str | Words:
    """Return `prompt` with its `${name}` replaced (`$${` stands for `${`), or the words for why not.

    A replacement is not looked into again, so that variables cannot multiply each other.
    """
    size = len(prompt)
    for match in _REFERENCE.finditer(prompt):
        name = match[1]
        if match[0].startswith("$$"):
            continue
        if name not in texts:
            close = nearest(name, texts)
            instead = (
                f"did you mean `${{{close}}}`?" if close else "define it there, or write $${ for a plain ${"
            )
            return f"${{{name[:60]}}} is not defined", "`vars:` has no such name", instead
        size += len(texts[name])
        if size > PROMPT_CHARS * 2:
            return (
                "the prompt becomes too long",
                f"its variables make it over {PROMPT_CHARS:,}",
                "shorten them",
            )
    return _REFERENCE.sub(lambda m: m[0][1:] if m[0].startswith("$$") else texts[m[1]], prompt)


def matrix_rows(section: Map, report: Report) -> Iterator[tuple[dict[str, Member], int]]:
    """Yield the fields and the place of each row that `section` stands for, images outermost.

    Every member is a field with a list of its values (`images` and `prompts` by their plural); the rows
    are all combinations but those that an item of `exclude` describes by some or all of its fields.
    """
    members = section.members()
    excluded = members.pop("exclude", None)
    before = report.count
    axes = _axes(members, report)
    if not members:
        report.problem(section.at, "the matrix is empty", "", "write images: [...] and prompts: [...]")
    if report.count > before:
        return
    count = math.prod(len(values) for values in axes.values())
    if count > ROWS:
        what = f"the matrix is {count:,} rows"
        report.problem(section.at, what, f"{ROWS:,} are the most", "split it into several manifests")
        return
    excludes = _excludes(excluded, axes, report)
    used = [False] * len(excludes)
    for combination in itertools.product(*axes.values()):
        fields = dict(zip(axes, combination, strict=True))
        hits = [n for n, pattern in enumerate(excludes) if _matches(fields, pattern)]
        for n in hits:
            used[n] = True
        if not hits:
            yield fields, fields.get("prompt", combination[-1]).value_at
    for pattern, hit in zip(excludes, used, strict=True):
        if not hit and pattern:
            at = next(iter(pattern.values())).value_at
            report.warning(at, "this exclude matches no row", "", "compare it with the lists above")


def _axes(members: Mapping[str, Member], report: Report) -> dict[str, list[Member]]:
    axes: dict[str, list[Member]] = {}
    for name, member in members.items():
        field = AXES.get(name, name)
        if field in axes:
            report.problem(
                member.name_at, f"{field} is given twice", f"{name} is the same", "keep one of them"
            )
        elif field == "id":
            report.problem(member.name_at, "a matrix with ids", "each row needs its own", "leave them out")
        elif isinstance(member.value, Seq) and member.value.items:
            values = zip(member.value.items, member.value.ats, strict=True)
            axes[field] = [Member(value, member.name_at, at) for value, at in values]
        elif isinstance(member.value, Seq) or member.value is None:
            report.problem(member.value_at, f"{name} is empty", "so the matrix is, too", "list some values")
        else:
            axes[field] = [member]
    return dict(sorted(axes.items(), key=lambda axis: axis[0] == "prompt"))


def _excludes(excluded: Member | None, axes: Mapping[str, Any], report: Report) -> list[dict[str, Member]]:
    if excluded is None or excluded.value is None:
        return []
    items = excluded.value.items if isinstance(excluded.value, Seq) else [excluded.value]
    patterns: list[dict[str, Member]] = []
    for item in items:
        if not isinstance(item, Map) or not item.names:
            why = "each one names the fields of the rows to leave out"
            report.problem(
                excluded.value_at, "exclude with no mapping in it", why, "write - {image_url: ...}"
            )
            continue
        pattern = {AXES.get(name, name): member for name, member in item.members().items()}
        for name in pattern.keys() - axes.keys():
            what = f"exclude names {show(name)}"
            report.problem(
                pattern[name].name_at, what, "the matrix has no such list", f"use {', '.join(axes)}"
            )
        patterns.append(pattern)
    return patterns


def _matches(fields: Mapping[str, Member], pattern: Mapping[str, Member]) -> bool:
    return all(name in fields and _same(fields[name].value, wanted.value) for name, wanted in pattern.items())


def _same(one: Node, other: Node) -> bool:
    if isinstance(one, Map | Seq) or isinstance(other, Map | Seq):
        try:
            return bool(plain(one) == plain(other))
        except (TooMuch, Trapped):
            return False
    return type(one) is type(other) and one == other
