"""YAML text -> tree, from libyaml's event stream, with bounds on everything a file could explode.

Events carry places and say what was quoted; no constructor ever runs, so a tag can build nothing. The
builder is a loop, not a recursion, and shares what an alias names instead of copying it.
"""

from __future__ import annotations

import re
from sys import intern
from typing import TYPE_CHECKING, Any, Final

import yaml

from pipeline.manifest.nodes import DEPTH, Map, Node, Seq
from pipeline.manifest.problems import Report, Unreadable, pack, printable, show
from pipeline.manifest.scalars import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

_TEXT_TAGS: Final = frozenset({"!", "tag:yaml.org,2002:str"})
_LOADER: Final[Any] = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_SHORT: Final = 16
"""Scalars up to this length are mostly choices; the same ones are kept once."""

_CUT: Final = re.compile(r"(?<=[^\s])[ \t]+#(?=[^\s#!-])")
_MERGED: Final = 100
"""How many members merge keys may give one mapping; a job has some ten."""

_MERGED_IN_ALL: Final = 1_000_000


def read_yaml(text: str, report: Report) -> Node:
    """Return the document's tree; what is wrong but can be read over goes into `report`.

    Raises `Unreadable`, with the reason in `report`, where reading must end.
    """
    cut_lines = _cut_lines(text)
    data = text.encode("utf-8")
    del text  # of a bulk manifest one copy is enough
    builder = _Builder(report, cut_lines)
    try:
        loader = _LOADER(data)
        try:
            return builder.document(loader.get_event)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = pack(mark.line + 1, mark.column + 1) if mark else pack(1, 1)
        report.problem(at, *_syntax(data.decode("utf-8"), mark.line if mark else 0, error))
        report.partial = True
        return builder.salvaged()
    except yaml.reader.ReaderError as error:
        before = data[: error.position].decode("utf-8", "ignore")
        at = pack(before.count("\n") + 1, len(before) - before.rfind("\n"))
        report.problem(at, "not text that YAML can hold", str(error.reason), "remove that character")
        raise Unreadable from error


def _cut_lines(text: str) -> dict[int, int]:
    """Return line -> column (from 0) where text may end because of a `#` that was meant as text.

    A comment has a space after its #; `The #1 fan` has none.
    """
    if not _CUT.search(text):
        return {}
    found = ((number, _CUT.search(line)) for number, line in enumerate(text.split("\n")))
    return {number: match.start() for number, match in found if match}


def _syntax(text: str, line: int, error: yaml.MarkedYAMLError) -> tuple[str, str, str]:
    lines = text.split("\n", line + 1)
    source = lines[line] if line < len(lines) else ""
    said = printable(" ".join(part for part in (error.context, error.problem) if part))
    if re.match(r"\s*\t", source) or "'\\t'" in said:
        return "a tab in the indentation", "YAML allows only spaces there", "replace it by spaces"
    if "mapping values are not allowed" in said:
        why = "text with a colon and a space in it needs quotes"
        return "a second `: ` in one line", why, 'write prompt: "one: two"'
    if "cannot start any token" in said or "alphabetic or numeric" in said:
        return "not YAML", said, "put the text in quotes"
    return "not YAML", said, "check the quotes, brackets and indentation here"


class _Builder:
    """Turns events into a tree.

    `_stack` holds the open containers, the innermost last, and `_names` what each of them is called in the
    one around it.
    """

    def __init__(self, report: Report, cut_lines: dict[int, int]) -> None:
        self._next: Callable[[], Any] = lambda: None
        self._stack: list[Map | Seq] = []
        self._names: list[tuple[str | None, int]] = []
        self._report = report
        self._cut_lines = cut_lines
        self._anchors: dict[str, Node] = {}
        self._open_anchors: list[str | None] = []
        self._merges_left = _MERGED_IN_ALL

    def document(self, next_event: Callable[[], Any]) -> Node:
        """Return the tree of the only document. Raises yaml's errors, and `Unreadable` beyond a bound."""
        self._next = next_event
        self._next()  # StreamStart
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        root = self._value()
        self._next()  # DocumentEnd
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            why = "a manifest is one document"
            self._report.problem(_at(after), "a second document", why, "remove the `---`")
        return root

    def salvaged(self) -> Node:
        """Return what was whole when reading ended: the sections, and all rows but the one it ended in."""
        if not self._stack:
            return None
        root = self._stack[0]
        rows = self._stack[1] if isinstance(root, Map) and len(self._stack) > 1 else root
        if isinstance(rows, Seq):
            if rows is self._stack[-1] and rows.items:
                rows.items.pop()
                rows.ats.pop()
            if isinstance(root, Map):
                name, name_at = self._names[1]
                root.add(name or "", name_at, rows, rows.at)
        return root

    def _value(self) -> Node:
        """Read one value, whatever its depth, in one loop: the hot one of a bulk manifest.

        `name` is the member of the innermost mapping that waits for its value; `names` are those outside.
        """
        stack, names = self._stack, self._names
        name: str | None = None
        name_at = 0
        while True:
            event = self._next()
            kind = event.__class__
            mark = event.start_mark
            at = (mark.line + 1) << 32 | (mark.column + 1)
            top = stack[-1] if stack else None
            value: Node
            if name is None and top.__class__ is Map and kind is not yaml.MappingEndEvent:
                name, name_at = self._name(event, kind, at), at
                continue
            if kind is yaml.ScalarEvent:
                value = self._scalar(event, at)
            elif kind is yaml.AliasEvent:
                value = self._alias(event.anchor, at)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                value = self._closed(stack.pop())
                at = value.at
                name, name_at = names.pop()
                top = stack[-1] if stack else None
            else:
                stack.append(self._opened(event, at, len(stack)))
                names.append((name, name_at))
                name = None
                continue
            if top is None:
                return value
            if isinstance(top, Seq):
                top.add(value, at)
            else:
                top.add(name or "", name_at, value, at)
                name = None

    def _name(self, event: Any, kind: type, at: int) -> str:
        """Return the name of a member: text as it is written, whatever its type would be as a value."""
        value: Node = None
        if kind is yaml.ScalarEvent:
            value = intern(event.value)
            if event.anchor:
                self._anchors[event.anchor] = value
        elif kind is yaml.AliasEvent:
            value = self._alias(event.anchor, at)
        if not isinstance(value, str):
            self._stop(at, "a key that is no text", "keys are the names of fields", "write name: value")
        return str(value)

    def _scalar(self, event: Any, at: int) -> Node:
        text = event.value
        if len(text) <= _SHORT:
            text = intern(text)
        value: Node = text
        if event.implicit[0] and not event.tag:
            value = resolve(text)
            if self._cut_lines:
                self._warn_of_cut(event, at)
        elif event.tag and event.tag not in _TEXT_TAGS:
            what = f"the tag {show(event.tag)}"
            self._report.problem(at, what, "tags are not followed", "write the value without a tag")
        if event.anchor:
            self._anchors[event.anchor] = value
        return value

    def _warn_of_cut(self, event: Any, at: int) -> None:
        end = event.end_mark
        if event.value and self._cut_lines.get(end.line) == end.column:
            why = "a # after a space begins a comment"
            self._report.warning(at, "the text ends before its #", why, "put the whole text in quotes")

    def _opened(self, event: Any, at: int, depth: int) -> Map | Seq:
        if depth >= DEPTH:
            self._stop(at, f"nested more than {DEPTH} deep", "no job needs that", "flatten it")
        if event.tag:
            self._report.problem(at, f"the tag {show(event.tag)}", "tags are not followed", "remove the tag")
        self._open_anchors.append(event.anchor)
        return Map(at) if isinstance(event, yaml.MappingStartEvent) else Seq(at)

    def _closed(self, done: Map | Seq) -> Map | Seq:
        anchor = self._open_anchors.pop()
        if isinstance(done, Map):
            if len(set(done.names)) != len(done.names):
                self._duplicates(done)
            if "<<" in done.names:
                done = self._merged(done)
        if anchor:
            self._anchors[anchor] = done
        return done

    def _alias(self, anchor: str, at: int) -> Node:
        if anchor in self._open_anchors:
            self._stop(at, f"*{printable(anchor)} stands inside itself", "it would never end", "remove it")
        if anchor not in self._anchors:
            self._stop(
                at, f"*{printable(anchor)} names nothing", "no &anchor of that name stands above", "define it"
            )
        return self._anchors[anchor]

    def _duplicates(self, done: Map) -> None:
        seen: dict[str, int] = {}
        for name, at in zip(done.names, done.name_ats, strict=True):
            if name in seen and name != "<<":
                first = seen[name] >> 32
                self._report.problem(
                    at, f"{show(name)} is given twice", f"first on line {first}", "keep one of them"
                )
            seen.setdefault(name, at)

    def _merged(self, done: Map) -> Map:
        """Follow `<<`: members of the mappings it names, unless given here or by an earlier one."""
        whole = Map(done.at)
        merged: list[tuple[Node, int]] = []
        for name, value, name_at, value_at in zip(
            done.names, done.values, done.name_ats, done.value_ats, strict=True
        ):
            if name == "<<":
                merged += (
                    [(value, value_at)]
                    if not isinstance(value, Seq)
                    else zip(value.items, value.ats, strict=True)
                )
            else:
                whole.add(name, name_at, value, value_at)
        taken = set(whole.names)
        for source, at in merged:
            if not isinstance(source, Map):
                self._report.problem(at, "`<<` with no mapping", "it merges mappings", "write <<: *name")
                continue
            for name, member in source.members().items():
                if name not in taken:
                    taken.add(name)
                    whole.add(name, member.name_at, member.value, member.value_at)
            self._merges_left -= len(source.names)
            if len(taken) > _MERGED or self._merges_left < 0:
                self._stop(at, "too much is merged", f"{_MERGED} members are the most", "merge fewer")
        return whole

    def _stop(self, at: int, what: str, why: str, instead: str) -> None:
        self._report.problem(at, what, why, instead)
        raise Unreadable


def _at(event: Any) -> int:
    return pack(event.start_mark.line + 1, event.start_mark.column + 1)
