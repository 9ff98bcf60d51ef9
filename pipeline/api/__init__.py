"""The vendor's API: aiohttp and the vendor's JSON. Nothing untyped leaves this room."""

from pipeline.api.answers import (
    Accepted,
    CreateVerdict,
    Halted,
    LogPage,
    LogRow,
    Look,
    LookTrouble,
    NotAccepted,
    Phase,
    Refused,
    Throttled,
    Unknown,
)
from pipeline.api.client import Api, ApiKey, normalise_base_url

__all__ = [
    "Accepted",
    "Api",
    "ApiKey",
    "CreateVerdict",
    "Halted",
    "LogPage",
    "LogRow",
    "Look",
    "LookTrouble",
    "NotAccepted",
    "Phase",
    "Refused",
    "Throttled",
    "Unknown",
    "normalise_base_url",
]
