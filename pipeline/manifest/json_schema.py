"""The JSON Schema of manifests, for editors: made from the validator's own rules, so that both agree.

A schema cannot say all (unique ids, `${name}`, quotes); what it refuses the validator refuses, too.
"""

from __future__ import annotations

import types
import typing
from typing import Any, Final

from pipeline.manifest.expand import AXIS_ALIASES
from pipeline.manifest.fields import BUILT_IN_MODEL, VEO_RULES, FieldKind, FieldRule
from pipeline.manifest.jobs import MAX_ID_CHARS, MAX_TAKES
from pipeline.settings import Settings

JSON_SCHEMA_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_JSON_TYPE_BY_KIND: Final = {
    FieldKind.TEXT: "string",
    FieldKind.URL: "string",
    FieldKind.INTEGER: "integer",
    FieldKind.BOOLEAN: "boolean",
}
_DESCRIPTIONS: Final = {
    "model": "The model; the built-in one when left out.",
    "prompt": "What happens in the clip. With `vars:`, ${name} stands for a text.",
    "image_url": "The image to animate, 720p or more: a file's path, an http(s) URL or a data: URI.",
    "aspect_ratio": "The clip's shape. In quotes: without them YAML reads 16:9 as 969.",
    "duration": "The clip's length in seconds; 8 when left out.",
    "resolution": "1080p when left out.",
    "generate_audio": "Whether the clip has sound; true when left out.",
    "provider": "Who renders it; in any case.",
}
_TAKES_DESCRIPTION: Final = "How many goes at the row, to choose among: id, id.2, id.3, ..."


def manifest_schema() -> dict[str, Any]:
    """Return the schema of a whole manifest, a list of jobs or a mapping with sections."""
    return {
        "$schema": JSON_SCHEMA_DIALECT,
        "title": "veobatch manifest",
        "description": "Clips to be made from images and prompts.",
        "anyOf": [{"$ref": "#/$defs/jobs"}, {"$ref": "#/$defs/sections"}],
        "$defs": {
            "jobs": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/job"}},
            "job": {"anyOf": [{"$ref": "#/$defs/pair"}, {"$ref": "#/$defs/row"}]},
            "pair": _pair_schema(),
            "row": {
                "if": _other_model_condition(),
                "then": _job_schema(strict=False),
                "else": _job_schema(strict=True),
            },
            "sections": _sections_schema(),
        },
    }


def _pair_schema() -> dict[str, Any]:
    items = [
        _field_schema("image_url", VEO_RULES.fields["image_url"]),
        _field_schema("prompt", VEO_RULES.fields["prompt"]),
    ]
    return {
        "type": "array",
        "description": "The short form: [image_url, prompt].",
        "prefixItems": items,
        "minItems": 2,
        "maxItems": 2,
    }


def _other_model_condition() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["model"],
        "properties": {"model": {"not": {"const": BUILT_IN_MODEL}}},
    }


def _job_schema(*, strict: bool) -> dict[str, Any]:
    """Return the fields of a job; those of a model that is not built in are only named."""
    fields = {name: _field_schema(name, rule) for name, rule in VEO_RULES.fields.items()}
    if not strict:
        kept = ("model", "prompt", "image_url")
        fields = {
            name: fields[name] if name in kept else {"description": _DESCRIPTIONS[name]} for name in fields
        }
    fields["model"] = {"type": "string", "minLength": 1, "description": _DESCRIPTIONS["model"]}
    params: dict[str, Any] = {"type": "object", "description": "Fields of the model's own."}
    if strict:
        params |= {
            "properties": {n: _field_schema(n, r) for n, r in VEO_RULES.fields.items()},
            "additionalProperties": False,
        }
    row_id = {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_ID_CHARS,
        "description": "The row's own name.",
    }
    takes = {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_TAKES,
        "default": 1,
        "description": _TAKES_DESCRIPTION,
    }
    image = {**fields["image_url"], "description": "Short for image_url."}
    properties = {"id": row_id, "image": image, **fields, "takes": takes, "params": params}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _field_schema(name: str, rule: FieldRule) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": _JSON_TYPE_BY_KIND[rule.kind], "description": _DESCRIPTIONS[name]}
    if rule.ignore_case:
        alternatives = "|".join("".join(f"[{c}{c.upper()}]" for c in str(choice)) for choice in rule.choices)
        schema["pattern"] = f"^({alternatives})$"
    elif rule.choices:
        schema["enum"] = list(rule.choices)
    if rule.default is not None:
        schema["default"] = rule.default
    if rule.kind is FieldKind.URL:
        schema["minLength"] = 1
    if rule.min_size:
        schema |= {"minLength": rule.min_size, "pattern": "\\S"}
    if rule.max_size:
        schema["maxLength"] = rule.max_size
    return schema


def _sections_schema() -> dict[str, Any]:
    defaults = _job_schema(strict=False)
    del defaults["properties"]["id"]
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    return {
        "type": "object",
        "properties": {
            "version": {"const": 1, "description": "The manifest's version."},
            "defaults": _nullable(
                {**defaults, "description": "Fields for every job that does not give them."}
            ),
            "run": _nullable(_run_schema()),
            "vars": _nullable({**texts, "description": "Texts that ${name} stands for in prompts."}),
            "jobs": {"$ref": "#/$defs/jobs", "description": "One item a clip."},
            "matrix": _nullable(_matrix_schema()),
        },
        "anyOf": [{"required": ["jobs"]}, {"required": ["matrix"]}],
        "additionalProperties": False,
    }


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


def _matrix_schema() -> dict[str, Any]:
    names = [
        *AXIS_ALIASES,
        *(name for name in VEO_RULES.fields if name not in AXIS_ALIASES),
        "takes",
        "params",
    ]
    return {
        "type": "object",
        "description": "Every image with every prompt (and every value of any other field).",
        "properties": {**{name: {} for name in names}, "exclude": {"description": "Rows to leave out."}},
    }


def _run_schema() -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        properties[name] = {"type": [*_json_types(field.annotation), "null"]}
        if field.default is not None:
            properties[name]["default"] = field.default
        for rule in field.metadata:
            properties[name] |= {
                word: getattr(rule, attribute)
                for attribute, word in (("ge", "minimum"), ("le", "maximum"), ("gt", "exclusiveMinimum"))
                if getattr(rule, attribute, None) is not None
            }
    description = "Settings that belong to this batch; flags and environment are stronger."
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "additionalProperties": False,
    }


def _json_types(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _json_types(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is typing.Literal:
        return ["string"]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        found = [name for part in typing.get_args(annotation) for name in _json_types(part)]
        return sorted(set(found))
    return {bool: ["boolean"], int: ["integer"], float: ["number"], str: ["string"]}.get(annotation, [])
