"""The OpenAPI of a model, as `/docs-json` answers it, made from the catalogue. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pipeline.sandbox.catalog import Model

GENERATIONS_PATH: Final = "/v2/video/generations"

GENERATION_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "The generation's id."},
        "status": {
            "type": "string",
            "enum": ["waiting", "queued", "active", "generating", "completed", "error"],
        },
        "video": {
            "type": "object",
            "nullable": True,
            "properties": {"url": {"type": "string", "format": "uri"}},
            "required": ["url"],
        },
        "error": {
            "type": "object",
            "nullable": True,
            "properties": {"name": {"type": "string"}, "message": {"type": "string"}},
            "required": ["name", "message"],
        },
        "meta": {
            "type": "object",
            "nullable": True,
            "properties": {
                "usage": {
                    "type": "object",
                    "nullable": True,
                    "properties": {"credits_used": {"type": "number"}},
                    "required": ["credits_used"],
                }
            },
        },
    },
    "required": ["id", "status"],
}
"""A generation as create and status answer it, by the vendor's public OpenAPI."""


def openapi_document(model: Model, server: str) -> dict[str, Any]:
    """The whole document: create with that model's own fields, and status."""
    responses = {"200": {"description": "", "content": {"application/json": {"schema": GENERATION_SCHEMA}}}}
    id_parameter = {"name": "generation_id", "required": True, "in": "query", "schema": {"type": "string"}}
    body = {
        "type": "object",
        "title": model.id,
        "properties": {field.name: field.schema() for field in model.fields},
        "required": [field.name for field in model.fields if field.required],
    }
    post = {
        "operationId": "create",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": responses,
        "security": [{"access-token": []}],
    }
    get = {
        "operationId": "status",
        "parameters": [id_parameter],
        "responses": responses,
        "security": [{"access-token": []}],
    }
    return {
        "openapi": "3.0.0",
        "info": {"title": "Sandbox", "version": "1.0.0"},
        "servers": [{"url": server}],
        "paths": {GENERATIONS_PATH: {"post": post, "get": get}},
        "components": {"securitySchemes": {"access-token": {"scheme": "bearer", "type": "http"}}},
    }
