"""What every format is read into: plain values, and containers that know the place of each member.

A scalar is a plain Python value without a place of its own; its container holds it. That keeps a
manifest of 100,000 rows in some 50 MB. A `Trap` is a scalar that people and YAML 1.1 read differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, cast

DEPTH: Final = 40
"""How deep a manifest may nest. Jobs with params need five or six levels."""

MEMBERS: Final = 10_000
"""How many values one field may hold once its aliases are followed."""


@dataclass(frozen=True, slots=True)
class Trap:
    """A scalar as it was written, and what YAML 1.1 makes of it."""

    text: str
    reads_as: str


class Map:
    """A mapping in its order. `name_ats` and `value_ats` are packed places, member by member."""

    __slots__ = ("at", "name_ats", "names", "value_ats", "values")

    def __init__(self, at: int) -> None:
        self.at = at
        self.names: list[str] = []
        self.values: list[Node] = []
        self.name_ats: list[int] = []
        self.value_ats: list[int] = []

    @classmethod
    def counted(cls, at: int, names: list[str], values: list[Any], first: int) -> Map:
        """Return a whole mapping whose places are counted from `first`: each name, then its value."""
        whole = cls(at)
        whole.names, whole.values = names, values
        end = first + 2 * len(names)
        # Nothing is added to it any more, and a range is a tenth of the list.
        whole.name_ats = cast("list[int]", range(first, end, 2))
        whole.value_ats = cast("list[int]", range(first + 1, end + 1, 2))
        return whole

    def add(self, name: str, name_at: int, value: Node, value_at: int) -> None:
        self.names.append(name)
        self.name_ats.append(name_at)
        self.values.append(value)
        self.value_ats.append(value_at)

    def members(self) -> dict[str, Member]:
        """Return name -> member; of a repeated name, the last."""
        members = map(Member, self.values, self.name_ats, self.value_ats)
        return dict(zip(self.names, members, strict=True))


class Seq:
    """A list and the packed place of each item."""

    __slots__ = ("at", "ats", "items")

    def __init__(self, at: int) -> None:
        self.at = at
        self.items: list[Node] = []
        self.ats: list[int] = []

    def add(self, value: Node, at: int) -> None:
        self.items.append(value)
        self.ats.append(at)


Scalar: TypeAlias = str | int | float | bool | Trap | None
Node: TypeAlias = Map | Seq | Scalar | dict[str, Any] | list[Any]
"""Plain dicts and lists come from a JSON line that was read the fast way."""


class Member(NamedTuple):
    """A value of a mapping with the places of its name and itself."""

    value: Node
    name_at: int
    value_at: int


class TooMuch(ValueError):
    """A value is more than `MEMBERS` values once its aliases are followed."""


class Trapped(ValueError):
    """There is a `Trap` inside a value that has to become JSON."""

    def __init__(self, trap: Trap, at: int) -> None:
        super().__init__(trap.text)
        self.trap = trap
        self.at = at


def plain(node: Node, at: int = 0) -> Any:
    """Return `node` as plain dicts, lists and scalars, ready for JSON.

    Raises `TooMuch` when aliases multiply it beyond `MEMBERS`, `Trapped` when a `Trap` is in it.
    """
    return _plain(node, at, [MEMBERS])


def _plain(node: Node, at: int, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise TooMuch
    if isinstance(node, Map):
        rows = zip(node.names, node.values, node.value_ats, strict=True)
        return {name: _plain(value, value_at, left) for name, value, value_at in rows}
    if isinstance(node, Seq):
        return [_plain(value, value_at, left) for value, value_at in zip(node.items, node.ats, strict=True)]
    if isinstance(node, Trap):
        raise Trapped(node, at)
    return node
