"""Rows that differ from an earlier one in nothing but id, image and prompt: most of a large manifest.

What was found of the earlier row holds for them, too; the three texts are checked by themselves. Whatever is
not plain is left to the builder, which has the last word and the messages.
"""

from __future__ import annotations

from contextlib import suppress
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pipeline.manifest.fields import FieldKind
from pipeline.manifest.identity import canonical_json, canonical_text
from pipeline.manifest.urls import is_plain_and_right

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.manifest.fields import FieldRule, ModelRules
    from pipeline.manifest.jobs import JobDraft
    from pipeline.manifest.nodes import MappingNode

MAX_SHAPES: Final = 256
"""Rows that are all different gain nothing, and cost no more memory than this."""

_ID: Final = frozenset({"id"})
_IMAGE: Final = frozenset({"image", "image_url"})
_VARYING: Final = _ID | _IMAGE | {"prompt"}
_IMAGE_MARK: Final = "@image@"
_PROMPT_MARK: Final = "@prompt@"

ShapeKey = tuple[object, ...]


class RepeatedRow(NamedTuple):
    """Says that a row is right if its id is, which is still to be checked, and all else as in `draft`.

    `canonical` is its identity's text; the indexes are those of its three own values.
    """

    draft: JobDraft
    canonical: str
    id_index: int | None
    image_index: int
    prompt_index: int


class _Shape(NamedTuple):
    """A row that was right: its draft, where the three texts stand, and the pieces of its identity's text."""

    draft: JobDraft
    id_index: int | None
    image_index: int
    prompt_index: int
    prompt_rule: FieldRule
    pieces: tuple[str, str, str]


class RepeatedRows:
    """The shapes of rows that were right, by all that they say besides those three texts."""

    def __init__(self) -> None:
        self._shapes: dict[ShapeKey, _Shape] = {}
        self._last: tuple[MappingNode, list[int], _Shape] | None = None

    def match(self, node: MappingNode) -> RepeatedRow | None:
        """Say what `node` repeats if a row of its shape was right and its image and prompt are plain."""
        shape = self._shape_of(node)
        if shape is None:
            return None
        image: Any = node.values[shape.image_index]
        prompt: Any = node.values[shape.prompt_index]
        if not (_is_plain_image(image) and _is_plain_prompt(prompt, shape.prompt_rule)):
            return None
        before, between, after = shape.pieces
        encoded_image, encoded_prompt = f'"{image}"', encode_basestring_ascii(canonical_text(prompt))
        canonical = f"{before}{encoded_image}{between}{encoded_prompt}{after}"
        return RepeatedRow(shape.draft, canonical, shape.id_index, shape.image_index, shape.prompt_index)

    def _shape_of(self, node: MappingNode) -> _Shape | None:
        last = self._last
        if last is not None and _says_the_same(node, last[0], last[1]):
            return last[2]
        try:
            shape = self._shapes.get(_key(node))
        except TypeError:  # a list or a mapping in it
            return None
        if shape is not None:
            fixed = [n for n, name in enumerate(node.names) if name not in _VARYING]
            self._last = (node, fixed, shape)
        return shape

    def learn(self, node: MappingNode, draft: JobDraft, rules: ModelRules) -> None:
        """Remember a row of which nothing bad was found, warnings included."""
        names, fields = node.names, rules.fields
        prompt_rule, image_rule = fields.get("prompt"), fields.get("image_url")
        image, prompt = _index(names, _IMAGE), _index(names, frozenset({"prompt"}))
        if (
            len(self._shapes) >= MAX_SHAPES
            or image is None
            or prompt is None
            or prompt_rule is None
            or image_rule is None
            or (image_rule.kind, image_rule.choices) != (FieldKind.URL, ())
            or len(set(names)) < len(names)
        ):
            return
        body = {**draft.body, "image_url": _IMAGE_MARK, "prompt": _PROMPT_MARK}
        before, *rest = canonical_json(body).split(f'"{_IMAGE_MARK}"')
        pieces = (before, *rest[0].split(f'"{_PROMPT_MARK}"')) if len(rest) == 1 else ()
        if len(pieces) != 3:
            return
        with suppress(TypeError):  # a list or a mapping in it
            key = _key(node)
            self._shapes[key] = _Shape(draft, _index(names, _ID), image, prompt, prompt_rule, pieces)


def _key(node: MappingNode) -> ShapeKey:
    """Return all that a row says besides its three texts; 1, 1.0 and true are equal, but not the same."""
    parts: list[object] = [*node.names]
    for name, value in zip(node.names, node.values, strict=True):
        if name not in _VARYING:
            parts += (type(value), value)
    return tuple(parts)


def _says_the_same(node: MappingNode, other: MappingNode, fixed: Sequence[int]) -> bool:
    """Return whether two rows have equal keys; most rows are like the one before, which takes less to see."""
    if node.names != other.names:
        return False
    values, others = node.values, other.values
    return all(type(values[n]) is type(others[n]) and values[n] == others[n] for n in fixed)


def _index(names: Sequence[str], wanted: frozenset[str]) -> int | None:
    found = [n for n, name in enumerate(names) if name in wanted]
    return found[0] if len(found) == 1 else None


def _is_plain_image(value: Any) -> bool:
    return type(value) is str and is_plain_and_right(value)


def _is_plain_prompt(value: Any, rule: FieldRule) -> bool:
    return type(value) is str and "${" not in value and rule.check("prompt", value) is None
