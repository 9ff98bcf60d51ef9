"""The vendor's API: aiohttp and the vendor's JSON. Nothing untyped leaves this room."""

from pipeline.client.client import Api, ApiKey, normalise_base_url
from pipeline.client.responses import (
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
