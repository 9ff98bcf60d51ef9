"""How a sandbox behaves: one frozen, checked `SandboxOptions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pipeline.sandbox.durations import parse_durations
from pipeline.sandbox.keys import KeyRule

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.sandbox.lifecycle import Retirement

IdStyle = Literal["uuid-model", "uuid", "number", "integer", "token", "hostile"]
LogRows = Literal["finished", "accepted", "never"]
VideoMode = Literal["rendered", "small"]
ErrorShape = Literal["classic", "problem"]

MANAGEMENT_KEY: Final = "sandbox-management-key"

_ALLOWED_VALUES: Final = {
    "id_style": ("uuid-model", "uuid", "number", "integer", "token", "hostile"),
    "log_rows": ("finished", "accepted", "never"),
    "video": ("rendered", "small"),
    "create_status": (200, 201),
    "error_shape": ("classic", "problem"),
}


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """How the stand-in behaves. Vendor times (`_s`) are real seconds divided by `speed`; money is USD.

    - `port`, `cdn_port`: 0 picks a free one.
    - `key`: the only key that is let in; None lets in any but an empty one, unless there are `keys`.
    - `keys`: further keys that are let in, each with what it may do and spend. All share one balance.
    - `management_key`: may read the log of any key by its prefix, and create nothing.
    - `durations`: how long generations render, see `durations.parse_durations`.
    - `balance_usd`: create answers 403 once it does not cover what was charged and what is in flight.
    - `concurrency_limit`: generations in flight beyond which create answers 429.
    - `rate_limit`: requests a vendor's second beyond which the API answers 429; `log_rate_limit`: requests
      a vendor's minute that the log takes.
    - `clock_offset_s`: real seconds by which the vendor's clock is ahead of the true time; it shows in
      `Date`, in the log's times and windows, and when a key's limit resets.
    - `retired`: the models of the deprecation feed.
    - `error_shape`: errors as `{"message", ...}` or as `application/problem+json`; a fault may choose its
      own.
    - `log_rows`: whether a row shows in the log once its generation is finished, or once it was accepted,
      in either case `log_lag_s` later, or never.
    - `log_page_rows`: the most rows that a page of the log holds, whatever `limit` asks for.
    - `url_lifetime_s`: video URLs are signed and expire; None gives plain ones.
    - `price_720p_usd`, `price_1080p_usd`: the Veo model's price a second.
    - `id_style`: what generation ids look like; "integer" ones are JSON numbers, "hostile" ones break
      a client that splits, pastes or saves them.
    - `video`: "small" makes tiny clips without a caption, for thousands of them.
    - `fetch_images`: whether a create's links to images are fetched, and refused when they lead to none.
    - `create_status`: what an accepted create answers.
    - `journal`: the file that keeps accepted generations, so that the next sandbox continues with them; the
      first one makes the file and its folder. None keeps nothing.
    - `cdn_bytes_per_s`: the most that one download gets, in real seconds.
    """

    host: str = "127.0.0.1"
    port: int = 0
    cdn_port: int = 0
    speed: float = 1.0
    seed: int = 1
    key: str | None = None
    keys: tuple[KeyRule, ...] = ()
    management_key: str = MANAGEMENT_KEY
    clock_offset_s: float = 0.0
    retired: tuple[Retirement, ...] = ()
    error_shape: ErrorShape = "classic"
    durations: str = "lognormal"
    balance_usd: float = 1000.0
    concurrency_limit: int | None = None
    rate_limit: float | None = None
    log_lag_s: float = 30.0
    log_rows: LogRows = "finished"
    log_rate_limit: int = 200
    log_page_rows: int = 100
    url_lifetime_s: float | None = None
    price_720p_usd: float = 0.10
    price_1080p_usd: float = 0.15
    id_style: IdStyle = "uuid-model"
    video: VideoMode = "rendered"
    fetch_images: bool = False
    create_status: Literal[200, 201] = 200
    cdn_bytes_per_s: float | None = None
    journal: Path | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError` that names the option and what it may be."""
        parse_durations(self.durations)
        for name, allowed in _ALLOWED_VALUES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: {getattr(self, name)!r} is none of {', '.join(map(str, allowed))}")
        for name in (
            "speed",
            "rate_limit",
            "url_lifetime_s",
            "cdn_bytes_per_s",
            "concurrency_limit",
            "log_rate_limit",
            "log_page_rows",
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name}: {value} is not above 0")
        for name in ("balance_usd", "log_lag_s", "price_720p_usd", "price_1080p_usd"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: {getattr(self, name)} is below 0 or endless")
        for key in (self.management_key, *([self.key] if self.key is not None else [])):
            KeyRule(key)

    @property
    def key_rules(self) -> tuple[KeyRule, ...]:
        """All keys that are let in, apart from the management key; none lets in any key."""
        return (*([KeyRule(self.key)] if self.key is not None else []), *self.keys)
