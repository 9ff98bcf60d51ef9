"""One frozen, validated `Settings`, made of flags > environment > the manifest's `run:` > defaults.

It owns the meaning and the bounds of every setting; where a value came from is the caller's to know
and ours to name in the error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from yarl import URL

from pipeline.errors import UsageError
from pipeline.filenames import check_template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RECONCILE_AFTER_S: Final = 2700.0
"""How long a row has to be absent from the vendor's log: 1,800 s for a rendering and 900 s for the log's lag.

The vendor states neither; its log is an analytics pipeline (`/v2/logs`), so this errs on the side that costs
waiting, not money. No other setting shortens it.
"""

MAX_LINK_LIFE_S: Final = 7 * 24 * 3600.0
"""The longest that a signed link of S3 or Google Cloud Storage may live."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """What a run may do and how hard it tries. Durations in seconds, money in USD."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    concurrency: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    downloads: Annotated[int, Field(ge=1, le=1000)] = 8
    poll_interval: PositiveSeconds = 10.0
    timeout: PositiveSeconds = 1800.0
    request_timeout: PositiveSeconds = 60.0
    reconcile_after: Seconds = RECONCILE_AFTER_S
    reconcile_wait: Seconds | None = None
    generation_retries: Annotated[int, Field(ge=0, le=20)] = 1
    max_cost: Usd | None = None
    assume_price: Usd | None = None
    wait_for_quota: bool = False
    media: bool = True
    name: Annotated[str, Field(min_length=1, max_length=200)] = "{id}"
    max_video_bytes: Annotated[int, Field(ge=1)] = 2 * 1024**3
    check_images: bool = False
    allow_private_images: bool = False
    image_store: str | None = None
    image_store_public: bool = False
    image_link_life: Annotated[float, Field(ge=60, le=MAX_LINK_LIFE_S)] | None = None
    image_base_url: str | None = None
    fit: Literal["pad", "crop"] | None = None
    verify: bool = False
    fetch_missing: bool = False

    @field_validator("name")
    @classmethod
    def _check_name(cls, template: str) -> str:
        try:
            check_template(template)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return template

    @field_validator("image_base_url")
    @classmethod
    def _check_image_base_url(cls, url: str | None) -> str | None:
        if url is not None and not _is_web_address(url):
            raise ValueError("it should look like https://host/stills/")
        return url


def _is_web_address(text: str) -> bool:
    try:
        url = URL(text) if text.isprintable() and " " not in text else URL()
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.host)


def resolve(sources: Sequence[tuple[str, Mapping[str, Any]]]) -> Settings:
    """Merge `sources` (name, values), the strongest first; a value of None counts as not given.

    Raises `UsageError` that names the source of each value that will not do.
    """
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, values in sources:
        for name, value in values.items():
            if value is not None and name not in merged:
                merged[name] = value
                origin[name] = source
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        messages = [_error_text(item, origin) for item in error.errors()]
        raise UsageError("\n".join(messages)) from error


def _error_text(item: Mapping[str, Any], origin: Mapping[str, str]) -> str:
    name, value = str(item["loc"][0]), item["input"]
    if isinstance(value, str) and "@" in value:  # an address may hold a password
        value = f"***{value[value.rindex('@') :]}"
    return f"{origin.get(name, 'settings')}: {name}: {item['msg']}, not {value!r}"
