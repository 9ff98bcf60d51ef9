"""Owns what a sandbox can be asked to be like: one frozen, checked `SandboxOptions`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.sandbox.durations import parse_durations

IdStyle = Literal["uuid-model", "uuid", "number", "token", "hostile"]
LogRows = Literal["finished", "accepted", "never"]
Video = Literal["rendered", "small"]

_CHOICES: Final = {
    "id_style": ("uuid-model", "uuid", "number", "token", "hostile"),
    "log_rows": ("finished", "accepted", "never"),
    "video": ("rendered", "small"),
    "create_status": (200, 201),
}


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """How the stand-in behaves. Vendor times (`_s`) are real seconds divided by `speed`; money is USD.

    `key`: the only key that is let in; None lets in any but an empty one. `durations`: see
    `durations.parse_durations`. `concurrency_limit`: generations in flight beyond which create answers 429.
    `rate_limit`: API requests a vendor's second beyond which any answers 429. `log_rows`: whether a row shows in the
    log once its generation is finished, or once it was accepted, in either case `log_lag_s` later, or
    never. `url_lifetime_s`: video URLs are signed and expire; None gives plain ones. `video`: "small"
    makes tiny clips without words on them, for thousands of them. `cdn_bytes_per_s` (real seconds) bounds one download.
    """

    host: str = "127.0.0.1"
    port: int = 0
    cdn_port: int = 0
    speed: float = 1.0
    seed: int = 1
    key: str | None = None
    durations: str = "lognormal"
    balance_usd: float = 1000.0
    concurrency_limit: int | None = None
    rate_limit: float | None = None
    log_lag_s: float = 30.0
    log_rows: LogRows = "finished"
    log_rate_limit: int = 200
    url_lifetime_s: float | None = None
    price_720p_usd: float = 0.10
    price_1080p_usd: float = 0.15
    id_style: IdStyle = "uuid-model"
    video: Video = "rendered"
    create_status: Literal[200, 201] = 200
    cdn_bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError` that names the option and what it may be."""
        parse_durations(self.durations)
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: {getattr(self, name)!r} is none of {', '.join(map(str, allowed))}")
        for name in (
            "speed",
            "rate_limit",
            "url_lifetime_s",
            "cdn_bytes_per_s",
            "concurrency_limit",
            "log_rate_limit",
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name}: {value} is not above 0")
        for name in ("balance_usd", "log_lag_s", "price_720p_usd", "price_1080p_usd"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: {getattr(self, name)} is below 0 or endless")
        if self.key is not None and not re.fullmatch(r"[\x21-\x7e]+", self.key):
            raise ValueError("key: a key is made of printable ASCII without spaces")
