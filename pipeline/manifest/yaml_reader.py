"""YAML text to nodes, from libyaml's event stream, with a bound on everything that a file could blow up.

Events carry positions and say what was quoted; no constructor ever runs, so a tag cannot build an object. The
builder is a loop, not a recursion, and shares what an alias names instead of copying it.
"""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING, Any, Final

import yaml

from pipeline.manifest.nodes import MAX_DEPTH, MappingNode, Node, SequenceNode
from pipeline.manifest.problems import (
    ParseAborted,
    ProblemReport,
    escape_unprintable,
    format_value,
    pack_location,
)
from pipeline.manifest.yaml_errors import explain_syntax_error, suspicious_comments
from pipeline.manifest.yaml_scalars import resolve_scalar

if TYPE_CHECKING:
    from collections.abc import Callable

_TEXT_TAGS: Final = frozenset({"!", "tag:yaml.org,2002:str"})
_LOADER: Final[Any] = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_MAX_INTERNED_CHARS: Final = 16
"""Scalars up to this length are mostly choices; the same ones are kept once."""

_MAX_MERGED_MEMBERS: Final = 100
"""How many members merge keys may give one mapping; a job has some ten."""

_MAX_MERGED_TOTAL: Final = 1_000_000


def read_yaml(text: str, report: ProblemReport) -> Node:
    """Return the document's nodes; problems that do not stop the parser go into `report`.

    Raises `ParseAborted`, with the reason in `report`, when the rest cannot be read.
    """
    comment_columns = suspicious_comments(text)
    data = text.encode("utf-8")
    del text  # of a bulk manifest one copy is enough
    builder = _TreeBuilder(report, comment_columns)
    try:
        loader = _LOADER(data)
        try:
            return builder.document(loader.get_event)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        location = pack_location(mark.line + 1, mark.column + 1) if mark else pack_location(1, 1)
        report.add_problem(
            location, *explain_syntax_error(data.decode("utf-8"), mark.line if mark else 0, error)
        )
        report.partial = True
        return builder.partial_tree()
    except yaml.reader.ReaderError as error:
        preceding_text = data[: error.position].decode("utf-8", "ignore")
        location = pack_location(
            preceding_text.count("\n") + 1, len(preceding_text) - preceding_text.rfind("\n")
        )
        report.add_problem(
            location, "not text that YAML can hold", str(error.reason), "remove that character"
        )
        raise ParseAborted from error


class _TreeBuilder:
    """Turns events into nodes.

    `_stack` holds the open containers, the innermost last, and `_names` what each of them is called in the
    one around it.
    """

    def __init__(self, report: ProblemReport, comment_columns: dict[int, int]) -> None:
        self._next_event: Callable[[], Any] = lambda: None
        self._stack: list[MappingNode | SequenceNode] = []
        self._names: list[tuple[str | None, int]] = []
        self._report = report
        self._comment_columns = comment_columns
        self._anchors: dict[str, Node] = {}
        self._open_anchors: list[str | None] = []
        self._merges_left = _MAX_MERGED_TOTAL
        self._same_names: dict[tuple[str, ...], list[str]] = {}

    def document(self, next_event: Callable[[], Any]) -> Node:
        """Return the nodes of the only document. Raises yaml's errors, and `ParseAborted` beyond a bound."""
        self._next_event = next_event
        self._next_event()  # StreamStart
        if isinstance(self._next_event(), yaml.StreamEndEvent):
            return None
        root = self._value()
        self._next_event()  # DocumentEnd
        next_start = self._next_event()
        if not isinstance(next_start, yaml.StreamEndEvent):
            why = "a manifest is one document"
            self._report.add_problem(
                _event_location(next_start), "a second document", why, "remove the `---`"
            )
        return root

    def partial_tree(self) -> Node:
        """Return what was whole when reading ended: the sections, and all rows but the one it ended in."""
        if not self._stack:
            return None
        root = self._stack[0]
        rows = self._stack[1] if isinstance(root, MappingNode) and len(self._stack) > 1 else root
        if isinstance(rows, SequenceNode):
            if rows is self._stack[-1] and rows.items:
                rows.items.pop()
                rows.locations.pop()
            if isinstance(root, MappingNode):
                name, name_location = self._names[1]
                root.add(name or "", name_location, rows, rows.location)
        return root

    def _value(self) -> Node:
        """Read one value, whatever its depth, in one loop: the hot one of a bulk manifest.

        `name` is the member of the innermost mapping that waits for its value; `names` are those outside.
        """
        stack, names = self._stack, self._names
        name: str | None = None
        name_location = 0
        while True:
            event = self._next_event()
            kind = event.__class__
            mark = event.start_mark
            location = (mark.line + 1) << 32 | (mark.column + 1)
            top = stack[-1] if stack else None
            value: Node
            if name is None and top.__class__ is MappingNode and kind is not yaml.MappingEndEvent:
                name, name_location = self._name(event, kind, location), location
                continue
            if kind is yaml.ScalarEvent:
                value = self._scalar(event, location)
            elif kind is yaml.AliasEvent:
                value = self._alias(event.anchor, location)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                value = self._close_container(stack.pop())
                location = value.location
                name, name_location = names.pop()
                top = stack[-1] if stack else None
            else:
                stack.append(self._open_container(event, location, len(stack)))
                names.append((name, name_location))
                name = None
                continue
            if top is None:
                return value
            if isinstance(top, SequenceNode):
                top.add(value, location)
            else:
                top.add(name or "", name_location, value, location)
                name = None

    def _name(self, event: Any, kind: type, location: int) -> str:
        """Return the name of a member: text as it is written, whatever its type would be as a value."""
        value: Node = None
        if kind is yaml.ScalarEvent:
            value = intern(event.value)
            if event.anchor:
                self._anchors[event.anchor] = value
        elif kind is yaml.AliasEvent:
            value = self._alias(event.anchor, location)
        if not isinstance(value, str):
            self._abort(
                location, "a key that is no text", "keys are the names of fields", "write name: value"
            )
        return str(value)

    def _scalar(self, event: Any, location: int) -> Node:
        text = event.value
        if len(text) <= _MAX_INTERNED_CHARS:
            text = intern(text)
        value: Node = text
        if event.implicit[0] and not event.tag:
            value = resolve_scalar(text)
            if self._comment_columns:
                self._warn_truncated(event, location)
        elif event.tag and event.tag not in _TEXT_TAGS:
            what = f"the tag {format_value(event.tag)}"
            self._report.add_problem(location, what, "tags are not followed", "write the value without a tag")
        if event.anchor:
            self._anchors[event.anchor] = value
        return value

    def _warn_truncated(self, event: Any, location: int) -> None:
        end = event.end_mark
        if event.value and self._comment_columns.get(end.line) == end.column:
            why = "a # after a space begins a comment"
            self._report.add_warning(
                location, "the text ends before its #", why, "put the whole text in quotes"
            )

    def _open_container(self, event: Any, location: int, depth: int) -> MappingNode | SequenceNode:
        if depth >= MAX_DEPTH:
            self._abort(location, f"nested more than {MAX_DEPTH} deep", "no job needs that", "flatten it")
        if event.tag:
            self._report.add_problem(
                location, f"the tag {format_value(event.tag)}", "tags are not followed", "remove the tag"
            )
        self._open_anchors.append(event.anchor)
        return MappingNode(location) if isinstance(event, yaml.MappingStartEvent) else SequenceNode(location)

    def _close_container(self, node: MappingNode | SequenceNode) -> MappingNode | SequenceNode:
        anchor = self._open_anchors.pop()
        if isinstance(node, MappingNode):
            if len(set(node.names)) != len(node.names):
                self._check_duplicates(node)
            if "<<" in node.names:
                node = self._apply_merge_keys(node)
            node.names = self._same_names.setdefault(tuple(node.names), node.names)
            node.pack_locations()
        if anchor:
            self._anchors[anchor] = node
        return node

    def _alias(self, anchor: str, location: int) -> Node:
        if anchor in self._open_anchors:
            self._abort(
                location,
                f"*{escape_unprintable(anchor)} stands inside itself",
                "it would never end",
                "remove it",
            )
        if anchor not in self._anchors:
            self._abort(
                location,
                f"*{escape_unprintable(anchor)} names nothing",
                "no &anchor of that name stands above",
                "define it",
            )
        return self._anchors[anchor]

    def _check_duplicates(self, node: MappingNode) -> None:
        seen: dict[str, int] = {}
        for name, location in zip(node.names, node.name_locations, strict=True):
            if name in seen and name != "<<":
                first = seen[name] >> 32
                self._report.add_problem(
                    location,
                    f"{format_value(name)} is given twice",
                    f"first on line {first}",
                    "keep one of them",
                )
            seen.setdefault(name, location)

    def _apply_merge_keys(self, node: MappingNode) -> MappingNode:
        """Follow `<<`: members of the mappings it names, unless given here or by an earlier one."""
        result = MappingNode(node.location)
        sources: list[tuple[Node, int]] = []
        for name, value, name_location, value_location in zip(
            node.names, node.values, node.name_locations, node.value_locations, strict=True
        ):
            if name == "<<":
                sources += (
                    [(value, value_location)]
                    if not isinstance(value, SequenceNode)
                    else zip(value.items, value.locations, strict=True)
                )
            else:
                result.add(name, name_location, value, value_location)
        seen = set(result.names)
        for source, location in sources:
            if not isinstance(source, MappingNode):
                self._report.add_problem(
                    location, "`<<` with no mapping", "it merges mappings", "write <<: *name"
                )
                continue
            for name, member in source.members().items():
                if name not in seen:
                    seen.add(name)
                    result.add(name, member.name_location, member.value, member.value_location)
            self._merges_left -= len(source.names)
            if len(seen) > _MAX_MERGED_MEMBERS or self._merges_left < 0:
                self._abort(
                    location,
                    "too much is merged",
                    f"{_MAX_MERGED_MEMBERS} members are the most",
                    "merge fewer",
                )
        return result

    def _abort(self, location: int, what: str, why: str, instead: str) -> None:
        self._report.add_problem(location, what, why, instead)
        raise ParseAborted


def _event_location(event: Any) -> int:
    return pack_location(event.start_mark.line + 1, event.start_mark.column + 1)
