"""The vendor's API: aiohttp and the vendor's JSON. Nothing untyped leaves this room."""

from pipeline.client.account import ChargedUsage, KeyInfo, SpendingLimit, TransactionPage, key_id
from pipeline.client.client import Api
from pipeline.client.create_result import (
    Accepted,
    AccountBlocked,
    CreateResult,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    RetryableRejection,
)
from pipeline.client.endpoint import ApiKey, normalize_base_url
from pipeline.client.log_responses import LogPage, LogRow
from pipeline.client.refusals import Cause, Refusal
from pipeline.client.responses import GenerationStatus, Phase, StatusError

__all__ = [
    "Accepted",
    "AccountBlocked",
    "Api",
    "ApiKey",
    "Cause",
    "ChargedUsage",
    "CreateResult",
    "GenerationStatus",
    "KeyInfo",
    "LogPage",
    "LogRow",
    "OutcomeUnknown",
    "Phase",
    "RateLimited",
    "Refusal",
    "Rejected",
    "RetryableRejection",
    "SpendingLimit",
    "StatusError",
    "TransactionPage",
    "key_id",
    "normalize_base_url",
]
