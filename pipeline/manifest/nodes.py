"""What every format is read into: plain values, and containers that know the position of each member.

A scalar is a plain Python value; its container holds its position. That keeps a
manifest of 100,000 rows in some 50 MB. An `AmbiguousScalar` is one that people and YAML 1.1 read differently.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

from pipeline.manifest.problems import pack_location

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH: Final = 40
"""How deep a manifest may nest. Jobs with params need five or six levels."""

MAX_FIELD_VALUES: Final = 10_000
"""How many values one field may hold once its aliases are followed."""


@dataclass(frozen=True, slots=True)
class AmbiguousScalar:
    """A scalar as it was written, and what YAML 1.1 makes of it."""

    text: str
    yaml_meaning: str


class MappingNode:
    """A mapping in its order. `name_locations` and `value_locations` are packed, member by member."""

    __slots__ = ("location", "name_locations", "names", "value_locations", "values")

    def __init__(self, location: int) -> None:
        self.location = location
        self.names: list[str] = []
        self.values: list[Node] = []
        self.name_locations: list[int] = []
        self.value_locations: list[int] = []

    @classmethod
    def with_virtual_locations(
        cls, location: int, names: list[str], values: list[Any], first_location: int
    ) -> MappingNode:
        """Return a whole mapping, its positions counted from `first_location`: each name, then its value."""
        node = cls.__new__(cls)
        node.location, node.names, node.values = location, names, values
        end = first_location + 2 * len(names)
        # Nothing is added to it any more, and a range is a tenth of the list.
        node.name_locations = cast("list[int]", range(first_location, end, 2))
        node.value_locations = cast("list[int]", range(first_location + 1, end + 1, 2))
        return node

    def add(self, name: str, name_location: int, value: Node, value_location: int) -> None:
        self.names.append(name)
        self.name_locations.append(name_location)
        self.values.append(value)
        self.value_locations.append(value_location)

    def pack_locations(self) -> None:
        """Keep the positions of a whole mapping in a third of the memory; nothing is added to it any more."""
        self.name_locations = cast("list[int]", array("q", self.name_locations))
        self.value_locations = cast("list[int]", array("q", self.value_locations))

    def members(self) -> dict[str, Member]:
        """Return name -> member; of a repeated name, the last."""
        members = map(Member, self.values, self.name_locations, self.value_locations)
        return dict(zip(self.names, members, strict=True))


class SequenceNode:
    """A list and the packed location of each item.

    `advice` says why there is no job when it is the list of them and is empty, and what to write.
    """

    advice = ("the list is empty", "write [image_url, prompt] items")
    __slots__ = ("items", "location", "locations")

    def __init__(self, location: int) -> None:
        self.location = location
        self.items: list[Node] = []
        self.locations: list[int] = []

    def add(self, value: Node, location: int) -> None:
        self.items.append(value)
        self.locations.append(location)

    def drain(self) -> Iterator[tuple[Node, int]]:
        """Yield each item and its location; what was yielded is no longer held here."""
        for n, location in enumerate(self.locations):
            node, self.items[n] = self.items[n], None
            yield node, location


class RowStream(SequenceNode):
    """The rows of a bulk file, read as they are asked for, once: a hundred thousand are never there at once.

    Draining it raises `ParseAborted` where the file cannot be read on.
    """

    __slots__ = ("_rows", "advice")

    def __init__(self, rows: Iterator[tuple[Node, int]], advice: tuple[str, str]) -> None:
        super().__init__(pack_location(1, 1))
        self._rows, self.advice = rows, advice

    def drain(self) -> Iterator[tuple[Node, int]]:
        return self._rows


Scalar: TypeAlias = str | int | float | bool | AmbiguousScalar | None
Node: TypeAlias = MappingNode | SequenceNode | Scalar | dict[str, Any] | list[Any]
"""Plain dicts and lists come from a JSON line that was read the fast way."""


class Member(NamedTuple):
    """A value of a mapping, with the locations of its name and of itself."""

    value: Node
    name_location: int
    value_location: int


class ValueTooLarge(ValueError):
    """A value is more than `MEMBERS` values once its aliases are followed."""


class AmbiguousScalarError(ValueError):
    """There is an `AmbiguousScalar` inside a value that has to become JSON."""

    def __init__(self, scalar: AmbiguousScalar, location: int) -> None:
        super().__init__(scalar.text)
        self.scalar = scalar
        self.location = location


def scalar_or_empty(value: Node) -> Any:
    """Return what a rule for a scalar can judge."""
    if isinstance(value, MappingNode):
        return {}
    return [] if isinstance(value, SequenceNode) else value


def to_python(node: Node, location: int = 0) -> Any:
    """Return `node` as plain dicts, lists and scalars, ready for JSON.

    Raises `ValueTooLarge` when aliases multiply it, `AmbiguousScalarError` when one is in it.
    """
    return _to_python(node, location, [MAX_FIELD_VALUES])


def _to_python(node: Node, location: int, remaining: list[int]) -> Any:
    remaining[0] -= 1
    if remaining[0] < 0:
        raise ValueTooLarge
    if isinstance(node, MappingNode):
        rows = zip(node.names, node.values, node.value_locations, strict=True)
        return {name: _to_python(value, value_at, remaining) for name, value, value_at in rows}
    if isinstance(node, SequenceNode):
        return [
            _to_python(value, value_at, remaining)
            for value, value_at in zip(node.items, node.locations, strict=True)
        ]
    if isinstance(node, AmbiguousScalar):
        raise AmbiguousScalarError(node, location)
    return node
