"""A model's OpenAPI document -> `ModelRules`: its own request schema, field by field.

What the schema says in a way that is not understood here is let through: the vendor has the last word,
and a rule invented here would be a wall. Pure; where the document comes from is `api.catalogue`'s.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.fields import PROMPT_CHARS, FieldRule, Kind, ModelRules

if TYPE_CHECKING:
    from collections.abc import Mapping

CREATE_PATH: Final = "/video/generations"
_HOPS: Final = 20
"""How many `$ref` and `allOf` may stand inside each other."""

_KINDS: Final[Mapping[str, Kind]] = {
    "string": Kind.TEXT,
    "integer": Kind.INTEGER,
    "number": Kind.NUMBER,
    "boolean": Kind.BOOLEAN,
    "array": Kind.LIST,
    "object": Kind.OBJECT,
}


def rules_from_openapi(document: Any, model: str) -> ModelRules | None:
    """Return the rules of `model` from its OpenAPI `document`, None when it describes no create request."""
    if not isinstance(document, dict):
        return None
    schema = _flat(_create_schema(document), document, model, _HOPS)
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        return None
    required = tuple(
        name for name in _list(schema.get("required")) if isinstance(name, str) and name != "model"
    )
    fields = {
        str(name): _field(str(name), _flat(part, document, model, _HOPS), document, str(name) in required)
        for name, part in properties.items()
        if name != "model"
    }
    fields["model"] = FieldRule(Kind.TEXT)
    closed = schema.get("additionalProperties") is False
    return ModelRules(model, MappingProxyType(fields), required, closed)


def _create_schema(document: Mapping[str, Any]) -> Any:
    """Return the request schema of the create call, or of the only call that takes a body."""
    found: dict[str, Any] = {}
    for path, item in _dict(document.get("paths")).items():
        post = _dict(_dict(item).get("post"))
        content = _dict(_dict(post.get("requestBody")).get("content"))
        if "application/json" in content:
            found[str(path)] = _dict(content["application/json"]).get("schema")
    for path, schema in found.items():
        if path.rstrip("/").endswith(CREATE_PATH):
            return schema
    return next(iter(found.values())) if len(found) == 1 else None


def _flat(schema: Any, document: Mapping[str, Any], model: str, hops: int) -> dict[str, Any]:
    """Return `schema` with its references followed, `allOf` merged and the branch of `model` chosen."""
    if not isinstance(schema, dict) or hops <= 0:
        return {}
    if isinstance(schema.get("$ref"), str):
        return _flat(_target(schema["$ref"], document), document, model, hops - 1)
    whole = {name: value for name, value in schema.items() if name not in {"allOf", "oneOf", "anyOf"}}
    for part in _list(schema.get("allOf")):
        whole = _merged(whole, _flat(part, document, model, hops - 1))
    branches = [_flat(part, document, model, hops - 1) for part in _branches(schema)]
    if branches:
        whole = _merged(whole, _chosen(branches, model))
    return whole


def _branches(schema: Mapping[str, Any]) -> list[Any]:
    return _list(schema.get("oneOf")) + _list(schema.get("anyOf"))


def _chosen(branches: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """Return the branch that is about `model`, else the only one that is no null, else what is in all."""
    for branch in branches:
        named = _dict(_dict(branch.get("properties")).get("model"))
        if model in _list(named.get("enum")) or named.get("const") == model:
            return branch
    solid = [branch for branch in branches if branch.get("type") != "null"]
    nullable = {"nullable": True} if len(solid) < len(branches) else {}
    if len(solid) == 1:
        return {**solid[0], **nullable}
    if not any("properties" in branch for branch in solid):
        return nullable
    required = set.intersection(*({str(n) for n in _list(b.get("required"))} for b in solid))
    properties: dict[str, Any] = {}
    for branch in solid:
        for name, part in _dict(branch.get("properties")).items():
            properties[name] = {} if name in properties and properties[name] != part else part
    return {"properties": properties, "required": sorted(required)}


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    whole = {**one, **other}
    if "properties" in one and "properties" in other:
        whole["properties"] = {**_dict(one["properties"]), **_dict(other["properties"])}
    if "required" in one and "required" in other:
        whole["required"] = [*_list(one["required"]), *_list(other["required"])]
    return whole


def _target(ref: str, document: Mapping[str, Any]) -> Any:
    node: Any = document
    if not ref.startswith("#/"):
        return None
    for part in ref[2:].split("/"):
        node = _dict(node).get(part.replace("~1", "/").replace("~0", "~"))
    return node


def _field(name: str, schema: Mapping[str, Any], document: Mapping[str, Any], required: bool) -> FieldRule:
    types = schema.get("type")
    named = [t for t in (types if isinstance(types, list) else [types]) if isinstance(t, str)]
    solid = [t for t in named if t != "null"]
    kind = _KINDS.get(solid[0], Kind.ANY) if len(solid) == 1 else Kind.ANY
    choices = tuple(choice for choice in _choices(schema) if choice is not None)
    size = "Items" if kind is Kind.LIST else "Length"
    if kind is Kind.TEXT and (schema.get("format") in {"uri", "url"} or name == "image_url"):
        kind = Kind.URL
    shortest = _int(schema.get(f"min{size}"))
    longest = _int(schema.get(f"max{size}"))
    if name == "prompt" and kind is Kind.TEXT:
        shortest, longest = shortest or (1 if required else None), longest or PROMPT_CHARS
    return FieldRule(
        kind,
        choices=choices,
        default=_default(schema.get("default"), kind),
        minimum=_float(schema.get("minimum")),
        maximum=_float(schema.get("maximum")),
        min_size=shortest,
        max_size=longest,
        items=_items(name, schema, document) if kind is Kind.LIST else None,
        nullable=schema.get("nullable") is True or "null" in named or None in _choices(schema),
    )


def _items(name: str, schema: Mapping[str, Any], document: Mapping[str, Any]) -> FieldRule | None:
    item = _flat(schema.get("items"), document, "", _HOPS)
    return (
        _field(name, item, document, False) if item.get("type") in {"string", "integer", "number"} else None
    )


def _choices(schema: Mapping[str, Any]) -> list[Any]:
    return [schema["const"]] if "const" in schema else _list(schema.get("enum"))


def _default(value: Any, kind: Kind) -> Any:
    """Return the default in the field's own type: the vendor's schemas write `"8"` for an integer."""
    if kind is Kind.INTEGER and isinstance(value, str) and value.isdecimal():
        return int(value)
    return value


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
