"""The models of the stand-in: their fields, their prices, and whether a request body is valid.

Field names, values and defaults of `google/veo-3.1-i2v-fast` are those of the vendor's public OpenAPI.
The two other models and all prices are made up. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

JsonType = Literal["string", "integer", "number", "boolean"]
JSON_TO_PYTHON_TYPES: Final[Mapping[JsonType, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a model's request body, as OpenAPI describes it."""

    name: str
    kind: JsonType
    description: str
    required: bool = False
    enum: tuple[str | int, ...] = ()
    case_insensitive_enum: tuple[str, ...] = ()
    uri: bool = False
    default: str | int | bool | None = None

    def validation_error(self, value: object) -> str | None:
        """Why `value` is not valid, in a message that names the field, or None."""
        if isinstance(value, bool) != (self.kind == "boolean") or not isinstance(
            value, JSON_TO_PYTHON_TYPES[self.kind]
        ):
            return f"{self.name} must be {_type_phrase(self.kind)}"
        if self.enum and value not in self.enum:
            return f"{self.name} must be one of the following values: {', '.join(map(str, self.enum))}"
        if self.case_insensitive_enum and str(value).lower() not in self.case_insensitive_enum:
            return f"{self.name} must be one of the following values: {', '.join(self.case_insensitive_enum)}"
        if self.uri and not _is_uri(str(value)):
            return f"{self.name} must be a valid URL"
        if self.required and value == "":
            return f"{self.name} should not be empty"
        return None

    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": self.kind, "description": self.description}
        if self.enum:
            schema["enum"] = list(self.enum)
        if self.uri:
            schema["format"] = "uri"
        if self.default is not None:
            schema["default"] = self.default
        return schema


@dataclass(frozen=True, slots=True)
class Model:
    """One model: its ids, its fields, and how it is priced."""

    id: str
    title: str
    fields: tuple[Field, ...]
    pricing: Literal["fixed", "variants", "variable"]
    aliases: tuple[str, ...] = ()
    fixed_usd: float = 0.0

    def validation_errors(self, body: Mapping[str, Any]) -> list[str]:
        """All errors of `body`, each with the name of its field; unknown fields are accepted."""
        found: list[str] = []
        for field in self.fields:
            if field.name == "model" and body.get("model") in self.aliases:
                continue
            if field.name not in body:
                found += [f"{field.name} is required"] if field.required else []
            elif (problem := field.validation_error(body[field.name])) is not None:
                found.append(problem)
        return found

    def requires(self, name: str) -> bool:
        return any(field.required and field.name == name for field in self.fields)

    def value(self, body: Mapping[str, Any], name: str, default: Any) -> Any:
        """The body's value of a field, else the field's default, else `default`."""
        fallback = next((f.default for f in self.fields if f.name == name and f.default is not None), default)
        return body.get(name, fallback)


def _type_phrase(kind: JsonType) -> str:
    return {"integer": "an integer number", "number": "a number", "boolean": "a boolean value"}.get(
        kind, f"a {kind}"
    )


def _is_uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return (parts.scheme in ("http", "https") and bool(parts.hostname)) or text.startswith("data:image/")


_PROMPT: Final = Field(
    "prompt", "string", "The text description of the scene, subject, or action to generate.", required=True
)
_ASPECT_RATIO: Final = Field(
    "aspect_ratio", "string", "The aspect ratio of the generated video.", enum=("16:9", "9:16")
)


def _model_field(model: str) -> Field:
    return Field("model", "string", "The model's id.", required=True, enum=(model,))


VEO: Final = Model(
    "google/veo-3.1-i2v-fast",
    "Veo 3.1 Fast image-to-video",
    (
        _model_field("google/veo-3.1-i2v-fast"),
        _PROMPT,
        Field("image_url", "string", "URL of the image to animate, 720p or more.", required=True, uri=True),
        _ASPECT_RATIO,
        Field("duration", "integer", "The clip's length in seconds.", enum=(4, 6, 8), default=8),
        Field("resolution", "string", "The clip's resolution.", enum=("720p", "1080p"), default="1080p"),
        Field("generate_audio", "boolean", "Whether to generate sound.", default=True),
        Field(
            "provider",
            "string",
            "Routing, in any case.",
            case_insensitive_enum=("auto", "google", "fal"),
            default="auto",
        ),
    ),
    "variants",
    aliases=("veo-3.1-i2v-fast",),
)
VEO_BY_VALUE: Final = replace(
    VEO,
    id="google/veo-3.0-i2v-fast",
    title="Veo 3.0 Fast image-to-video",
    aliases=("veo-3.0-i2v-fast",),
    fields=tuple(
        replace(field, enum=("google/veo-3.0-i2v-fast",))
        if field.name == "model"
        else replace(field, description="A direct link to an online image or a Base64-encoded local image.")
        if field.name == "image_url"
        else field
        for field in VEO.fields
    ),
)
"""A model that takes pictures by value, as the vendor's schema of it says."""

SKETCH: Final = Model(
    "sandbox/sketch-t2v",
    "Sketch text-to-video (made up, one price a clip)",
    (
        _model_field("sandbox/sketch-t2v"),
        _PROMPT,
        Field("negative_prompt", "string", "What not to show."),
        Field("seed", "integer", "The same seed gives the same clip."),
        _ASPECT_RATIO,
        Field("duration", "integer", "The clip's length in seconds.", enum=(5, 10), default=5),
    ),
    "fixed",
    aliases=("sketch-t2v",),
    fixed_usd=0.35,
)
REMIX: Final = Model(
    "sandbox/remix-v2v",
    "Remix video-to-video (made up, its price is known only afterwards)",
    (
        _model_field("sandbox/remix-v2v"),
        Field("video_url", "string", "URL of the video to work on.", required=True, uri=True),
        Field("prompt", "string", "What to make of it."),
        Field("cfg_scale", "number", "How closely to follow the prompt."),
    ),
    "variable",
)
MODELS: Final = (VEO, SKETCH, REMIX, VEO_BY_VALUE)


def find_model(name: str) -> Model | None:
    return next((model for model in MODELS if name == model.id or name in model.aliases), None)
