"""A model's OpenAPI document -> `ModelRules`: its own request schema, field by field.

What the schema says in a way that is not understood here is let through: the vendor has the last word,
and a rule invented here would be a wall. Pure; `client.catalog` fetches the document.
"""

from __future__ import annotations

import math
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.fields import MAX_PROMPT_CHARS, FieldKind, FieldRule, ModelRules, media_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

CREATE_PATH: Final = "/video/generations"
_BY_VALUE: Final = re.compile(r"base-?64|data:? ?ur[il]", re.IGNORECASE)
"""How descriptions say that a field takes the picture itself, as a `data:` URI."""

_MAX_REF_DEPTH: Final = 20
"""How many `$ref` and `allOf` may stand inside each other."""

_KIND_BY_JSON_TYPE: Final[Mapping[str, FieldKind]] = {
    "string": FieldKind.TEXT,
    "integer": FieldKind.INTEGER,
    "number": FieldKind.NUMBER,
    "boolean": FieldKind.BOOLEAN,
    "array": FieldKind.LIST,
    "object": FieldKind.OBJECT,
}


def rules_from_openapi(document: Any, model: str) -> ModelRules | None:
    """Return the rules of `model` from its OpenAPI `document`, None when it describes no create request."""
    if not isinstance(document, dict):
        return None
    schema = _resolve_schema(_create_schema(document), document, model, _MAX_REF_DEPTH)
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        return None
    required = tuple(
        name for name in _list_or_empty(schema.get("required")) if isinstance(name, str) and name != "model"
    )
    fields = {
        str(name): _field_rule(
            str(name), _resolve_schema(part, document, model, _MAX_REF_DEPTH), document, str(name) in required
        )
        for name, part in properties.items()
        if name != "model"
    }
    fields["model"] = FieldRule(FieldKind.TEXT)
    rejects_unknown_fields = schema.get("additionalProperties") is False
    return ModelRules(model, MappingProxyType(fields), required, rejects_unknown_fields)


def _create_schema(document: Mapping[str, Any]) -> Any:
    """Return the request schema of the create call, or of the only call that takes a body."""
    schemas_by_path: dict[str, Any] = {}
    for path, item in _dict_or_empty(document.get("paths")).items():
        post = _dict_or_empty(_dict_or_empty(item).get("post"))
        content = _dict_or_empty(_dict_or_empty(post.get("requestBody")).get("content"))
        if "application/json" in content:
            schemas_by_path[str(path)] = _dict_or_empty(content["application/json"]).get("schema")
    for path, schema in schemas_by_path.items():
        if path.rstrip("/").endswith(CREATE_PATH):
            return schema
    return next(iter(schemas_by_path.values())) if len(schemas_by_path) == 1 else None


def _resolve_schema(schema: Any, document: Mapping[str, Any], model: str, depth_left: int) -> dict[str, Any]:
    """Return `schema` with its references followed, `allOf` merged and the branch of `model` chosen."""
    if not isinstance(schema, dict) or depth_left <= 0:
        return {}
    if isinstance(schema.get("$ref"), str):
        return _resolve_schema(_resolve_ref(schema["$ref"], document), document, model, depth_left - 1)
    resolved = {name: value for name, value in schema.items() if name not in {"allOf", "oneOf", "anyOf"}}
    for part in _list_or_empty(schema.get("allOf")):
        resolved = _merge_schemas(resolved, _resolve_schema(part, document, model, depth_left - 1))
    branches = [_resolve_schema(part, document, model, depth_left - 1) for part in _branches(schema)]
    if branches:
        resolved = _merge_schemas(resolved, _select_branch(branches, model))
    return resolved


def _branches(schema: Mapping[str, Any]) -> list[Any]:
    return _list_or_empty(schema.get("oneOf")) + _list_or_empty(schema.get("anyOf"))


def _select_branch(branches: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """Return the branch that is about `model`, else the only one that is no null, else what is in all."""
    for branch in branches:
        model_schema = _dict_or_empty(_dict_or_empty(branch.get("properties")).get("model"))
        if model in _list_or_empty(model_schema.get("enum")) or model_schema.get("const") == model:
            return branch
    non_null = [branch for branch in branches if branch.get("type") != "null"]
    nullable = {"nullable": True} if len(non_null) < len(branches) else {}
    if len(non_null) == 1:
        return {**non_null[0], **nullable}
    if not any("properties" in branch for branch in non_null):
        return nullable
    required = set.intersection(*({str(n) for n in _list_or_empty(b.get("required"))} for b in non_null))
    properties: dict[str, Any] = {}
    for branch in non_null:
        for name, part in _dict_or_empty(branch.get("properties")).items():
            properties[name] = {} if name in properties and properties[name] != part else part
    return {"properties": properties, "required": sorted(required)}


def _merge_schemas(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    merged = {**left, **right}
    if "properties" in left and "properties" in right:
        merged["properties"] = {**_dict_or_empty(left["properties"]), **_dict_or_empty(right["properties"])}
    if "required" in left and "required" in right:
        merged["required"] = [*_list_or_empty(left["required"]), *_list_or_empty(right["required"])]
    return merged


def _resolve_ref(ref: str, document: Mapping[str, Any]) -> Any:
    node: Any = document
    if not ref.startswith("#/"):
        return None
    for part in ref[2:].split("/"):
        node = _dict_or_empty(node).get(part.replace("~1", "/").replace("~0", "~"))
    return node


def _field_rule(
    name: str, schema: Mapping[str, Any], document: Mapping[str, Any], required: bool
) -> FieldRule:
    types = schema.get("type")
    type_names = [t for t in (types if isinstance(types, list) else [types]) if isinstance(t, str)]
    non_null = [t for t in type_names if t != "null"]
    kind = _KIND_BY_JSON_TYPE.get(non_null[0], FieldKind.ANY) if len(non_null) == 1 else FieldKind.ANY
    choices = tuple(choice for choice in _choices(schema) if choice is not None)
    size_suffix = "Items" if kind is FieldKind.LIST else "Length"
    items = _item_rule(name, schema, document) if kind is FieldKind.LIST else None
    description = str(schema.get("description", ""))
    by_value = bool(_BY_VALUE.search(description)) or (items is not None and items.by_value)
    if kind is FieldKind.TEXT and not choices and _is_url(name, schema, by_value=by_value):
        kind = FieldKind.URL
    takes_media = kind is FieldKind.URL or (items is not None and items.kind is FieldKind.URL)
    min_size = _int_or_none(schema.get(f"min{size_suffix}"))
    max_size = _int_or_none(schema.get(f"max{size_suffix}"))
    if name == "prompt" and kind is FieldKind.TEXT:
        min_size, max_size = min_size or (1 if required else None), max_size or MAX_PROMPT_CHARS
    return FieldRule(
        kind,
        choices=choices,
        default=_typed_default(schema.get("default"), kind),
        minimum=_float_or_none(schema.get("minimum")),
        maximum=_float_or_none(schema.get("maximum")),
        min_size=min_size,
        max_size=max_size,
        items=items,
        nullable=schema.get("nullable") is True or "null" in type_names or None in _choices(schema),
        media=media_kind(name, description) if takes_media else None,
        by_value=by_value,
    )


def _is_url(name: str, schema: Mapping[str, Any], *, by_value: bool) -> bool:
    """Return whether a text is an address: the schema says so, or it names an image or a video."""
    is_media = media_kind(name) is not None and (by_value or re.search(r"urls?$", name) is not None)
    return is_media or schema.get("format") in {"uri", "url"}


def _item_rule(name: str, schema: Mapping[str, Any], document: Mapping[str, Any]) -> FieldRule | None:
    item = _resolve_schema(schema.get("items"), document, "", _MAX_REF_DEPTH)
    return (
        _field_rule(name, item, document, False)
        if item.get("type") in {"string", "integer", "number"}
        else None
    )


def _choices(schema: Mapping[str, Any]) -> list[Any]:
    return [schema["const"]] if "const" in schema else _list_or_empty(schema.get("enum"))


def _typed_default(value: Any, kind: FieldKind) -> Any:
    """Return the default in the field's own type: the vendor's schemas write `"8"` for an integer."""
    if kind is FieldKind.INTEGER and isinstance(value, str) and value.isdecimal():
        return int(value)
    return value


def _dict_or_empty(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list_or_empty(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _int_or_none(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float_or_none(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of hundreds of digits bounds nothing, as infinity does
        return None
