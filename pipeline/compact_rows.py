"""How the rows of a batch lie in memory: a hundred thousand of them are most of what a run holds.

`compact` rebuilds a frozen dataclass: fields that seldom differ from their defaults share a slot by groups,
and a text that other fields contain is put together when it is asked for. Nobody else notices it: fields and
their order, equality, `dataclasses.replace` and pickling are what they were.
"""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields, make_dataclass
from functools import partial
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_T = TypeVar("_T")

Shape: TypeAlias = tuple[str, str, str, bool]
"""What is before, between and behind two texts, and whether the first one comes first."""

MAX_SHAPES: Final = 4096
"""Texts are alike but for those two; where they are not, no more shapes than these are kept."""

_shapes: Final[dict[Shape, Shape]] = {}


def pack(text: str | Shape, first: str, second: str) -> str | Shape:
    """Return what `unpack` makes `text` of again: a shape that many texts share, or the text itself."""
    if not isinstance(text, str):
        return text  # packed already
    i, j = text.find(first), text.find(second)
    start, end, length = (i, j, len(first)) if i < j else (j, i, len(second))
    if not first or not second or start < 0 or start + length > end:
        return text
    behind = end + len(first) + len(second) - length
    shape = (text[:start], text[start + length : end], text[behind:], i < j)
    if shape not in _shapes and len(_shapes) >= MAX_SHAPES:
        return text
    return _shapes.setdefault(shape, shape)


def unpack(kept: str | Shape, first: str, second: str) -> str:
    """Return the text that was packed."""
    if isinstance(kept, str):
        return kept
    before, between, behind, in_order = kept
    one, two = (first, second) if in_order else (second, first)
    return f"{before}{one}{between}{two}{behind}"


def pack_end(text: str | None, whole: str, beginning: str) -> str | None:
    """Return None for what `unpack_end` finds in `whole`, behind its beginning and an `@`."""
    return None if text == unpack_end(None, whole, beginning) else text


def unpack_end(kept: str | None, whole: str, beginning: str) -> str:
    """Return the text of which nothing had to be kept, or what was kept."""
    if kept is not None:
        return kept
    return whole[len(beginning) + 1 :] if whole.startswith(f"{beginning}@") else ""


class Derived(NamedTuple):
    """A field of which less is kept than its value, which goes together with those of two `sources`.

    `keep` returns what is kept, and leaves that as it is; `restore` returns the value again.
    """

    sources: tuple[str, str]
    keep: Callable[..., Any]
    restore: Callable[..., Any]


class _Layout:
    """Where the values of a class's fields are kept: alone in a slot, or with the others of their group."""

    def __init__(
        self, cls: type[Any], groups: Sequence[Sequence[str]], derived: Mapping[str, Derived]
    ) -> None:
        self.names = tuple(one.name for one in fields(cls))
        grouped = [name for group in groups for name in group]
        self.plain = tuple(name for name in self.names if name not in grouped)
        order = [*self.plain, *grouped]
        self.position = {name: number for number, name in enumerate(order)}
        defaults = {one.name: one.default for one in fields(cls)}
        self.defaults = [defaults[name] for name in order]
        self.required = self.defaults.count(MISSING)
        self.in_order = itemgetter(*(self.names.index(name) for name in order))
        self.derived = derived
        own_slots = [f"_{name}" if name in derived else name for name in self.plain]
        self.slots = (*own_slots, *(f"_group_{number}" for number in range(len(groups))))
        self.spans: list[tuple[int, int, tuple[Any, ...]]] = []
        start = len(self.plain)
        for group in groups:
            self.spans.append((start, start + len(group), tuple(defaults[name] for name in group)))
            start += len(group)
        self._kept_values: Callable[[object], tuple[Any, ...]] = attrgetter(*self.slots)
        self._to_keep: list[tuple[int, int, int, Callable[..., Any]]] = []
        for name, kind in derived.items():
            first, second = kind.sources
            numbers = self.position[name], self.position[first], self.position[second]
            self._to_keep.append((*numbers, kind.keep))

    def install(self, made: Any, original: type[Any]) -> None:
        """Give the class with these slots the fields that have no slot of their own."""
        made.__qualname__, made.__signature__ = original.__qualname__, inspect.signature(original)
        made.compact_layout = self
        self.make = slot_constructor(made)
        self._setters = [vars(made)[slot].__set__ for slot in self.slots]
        for name, kind in self.derived.items():
            setattr(made, name, _derived_property(name, kind))
        for number, (start, end, _) in enumerate(self.spans):
            for name, position in self.position.items():
                if start <= position < end:
                    setattr(made, name, _grouped_property(f"_group_{number}", position - start))

    def values(self, row: object) -> list[Any]:
        """Return what is kept of a row, in the order of positions."""
        kept = self._kept_values(row)
        values = list(kept[: len(self.plain)])
        for group in kept[len(self.plain) :]:
            values += group
        return values

    def kept_of(self, values: list[Any]) -> list[Any]:
        """Return what the slots keep of values that are in the order of positions."""
        for number, first, second, keep in self._to_keep:
            values[number] = keep(values[number], values[first], values[second])
        kept = values[: len(self.plain)]
        for start, end, defaults in self.spans:
            group = tuple(values[start:end])
            kept.append(defaults if group == defaults else group)
        return kept

    def fill(self, row: object, values: list[Any]) -> None:
        """Give a new row its values, which are in the order of positions."""
        for set_slot, value in zip(self._setters, self.kept_of(values), strict=True):
            set_slot(row, value)


def compact(*groups: Sequence[str], derived: Mapping[str, Derived]) -> Callable[[type[_T]], type[_T]]:
    """Return a decorator for a frozen dataclass without slots; fields in `groups` have defaults."""

    def rebuild(cls: type[_T]) -> type[_T]:
        layout = _Layout(cls, groups, derived)
        left_out = {*layout.names, "__dict__", "__weakref__"}
        namespace = {name: value for name, value in vars(cls).items() if name not in left_out}
        namespace |= {"__slots__": layout.slots, "__init__": _constructor(layout), "__reduce__": _reduce}
        meta: Any = type(cls)
        made: type[_T] = meta(cls.__name__, cls.__bases__, namespace)
        layout.install(made, cls)
        return made

    return rebuild


def changed(row: _T, changes: Mapping[str, Any]) -> _T:
    """Return a row with other values of some fields, in half the time of `dataclasses.replace`.

    Raises `TypeError` for a field that there is not.
    """
    cls: Any = type(row)
    layout: _Layout = cls.compact_layout
    values, position = layout.values(row), layout.position
    for name, kind in layout.derived.items():
        if not changes.keys().isdisjoint(kind.sources):
            values[position[name]] = getattr(row, name)
    for name, value in changes.items():
        if name not in position:
            raise TypeError(f"a {cls.__name__} has no {name}")
        values[position[name]] = value
    made: _T = layout.make(*layout.kept_of(values))
    return made


def row_maker(cls: type[_T], places: Mapping[str, int]) -> Callable[[Sequence[Any]], _T]:
    """Return what makes a row of a sequence, in half the time of calling the class.

    `places` says where in the sequence each field's value is.
    """
    layout: _Layout = getattr(cls, "compact_layout")  # noqa: B009 - `compact` gave it one
    ordered = itemgetter(*(places[name] for name in layout.position))
    kept_of, make = layout.kept_of, layout.make
    return lambda values: make(*kept_of(list(ordered(values))))


def slot_constructor(cls: type[_T]) -> Callable[..., _T]:
    """Return what makes an instance of a frozen dataclass from the values of all its slots, in their order.

    A frozen dataclass sets each of its attributes by a call, which takes most of the time of making it. Here
    the instance is made as one of a twin, which has the same slots and is not frozen, and is then given its
    own class: https://docs.python.org/3/reference/datamodel.html#object.__class__
    """
    slots: Sequence[str] = getattr(cls, "__slots__")  # noqa: B009 - not every class has them
    twin: Any = make_dataclass(f"_{cls.__name__}Twin", slots, slots=True, eq=False, repr=False)

    def construct(*values: Any) -> _T:
        made = twin(*values)
        made.__class__ = cls
        return made  # type: ignore[no-any-return]

    return construct


def kept_values_of(cls: Any, plain: Mapping[str, Callable[[Any], Any]]) -> Callable[[object], list[Any]]:
    """Return what lists all that is kept of a row, whose fields would take three times as long to ask for.

    Rows are equal where their lists are. `plain` says what stands for the values of some fields.
    """
    layout: _Layout = cls.compact_layout
    replaced = [(layout.position[name], make) for name, make in plain.items()]

    def kept_values(row: object) -> list[Any]:
        values = layout.values(row)
        for number, make in replaced:
            values[number] = make(values[number])
        return values

    return kept_values


def column(cls: Any, name: str) -> Callable[[Iterable[object]], Iterator[Any]]:
    """Return what yields the values of one field of many rows, in a third of the time of asking each row."""
    layout: _Layout = cls.compact_layout
    position = layout.position[name]
    for number, (start, end, _) in enumerate(layout.spans):
        if start <= position < end:
            group_of, value_of = attrgetter(f"_group_{number}"), itemgetter(position - start)
            return lambda rows: map(value_of, map(group_of, rows))
    return partial(map, attrgetter(name))


def _constructor(layout: _Layout) -> Callable[..., None]:
    def construct(self: object, *args: Any, **named: Any) -> None:
        if len(args) == len(layout.names):
            layout.fill(self, list(layout.in_order(args)))
            return
        values, position = layout.defaults.copy(), layout.position
        named.update(zip(layout.names, args, strict=False))
        try:
            for name, value in named.items():
                values[position[name]] = value
        except KeyError as error:
            raise TypeError(f"there is no field {error}") from None
        if MISSING in values[: layout.required]:
            raise TypeError("a field without a default has no value")
        layout.fill(self, values)

    return construct


def _reduce(self: Any) -> tuple[Any, ...]:
    return type(self), tuple(getattr(self, name) for name in self.compact_layout.names)


def _derived_property(name: str, kind: Derived) -> property:
    kept_values = attrgetter(f"_{name}", *kind.sources)
    restore = kind.restore
    return property(lambda row: restore(*kept_values(row)))


def _grouped_property(group: str, number: int) -> property:
    values_of = attrgetter(group)
    return property(lambda row: values_of(row)[number])
