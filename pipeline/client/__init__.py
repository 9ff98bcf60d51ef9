"""The vendor's API: aiohttp and the vendor's JSON. Nothing untyped leaves this room."""

from pipeline.client.account import ChargedUsage, TransactionPage, key_id
from pipeline.client.client import Api, ApiKey, normalize_base_url
from pipeline.client.responses import (
    Accepted,
    AccountBlocked,
    CreateResult,
    GenerationStatus,
    LogPage,
    LogRow,
    OutcomeUnknown,
    Phase,
    RateLimited,
    Rejected,
    RetryableRejection,
    StatusError,
)

__all__ = [
    "Accepted",
    "AccountBlocked",
    "Api",
    "ApiKey",
    "ChargedUsage",
    "CreateResult",
    "GenerationStatus",
    "LogPage",
    "LogRow",
    "OutcomeUnknown",
    "Phase",
    "RateLimited",
    "Rejected",
    "RetryableRejection",
    "StatusError",
    "TransactionPage",
    "key_id",
    "normalize_base_url",
]
