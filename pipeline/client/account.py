"""The account as the vendor's answers show it: whose key it is, and what was charged. Pure."""

from __future__ import annotations

import hmac
import math
from dataclasses import dataclass
from typing import Final

from pipeline.client.json_values import UnreadableResponseError, parse_id, parse_object


def key_id(secret: str, salt: str) -> str:
    """Return what identifies a key within one ledger (`salt`) and reveals no part of it."""
    return hmac.new(salt.encode(), secret.encode("utf-8", "replace"), "sha256").hexdigest()[:32]


VIDEO_SCOPE: Final = "model:video"
"""What a key has to be allowed for creates; one without a list of scopes is allowed all."""


@dataclass(frozen=True, slots=True)
class SpendingLimit:
    """What a key may spend within `retention`: `day`, `week`, `month`, or `no_reset`."""

    retention: str
    threshold_usd: float


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What the vendor says of the key that asks. `scopes` None: all. `usage_usd` is this month's."""

    disabled: bool
    scopes: tuple[str, ...] | None
    limit: SpendingLimit | None
    usage_usd: float


def parse_key_info(body: bytes) -> KeyInfo:
    """Read `GET /v1/key`; raises `UnreadableResponseError` when it describes no key.

    A part that has another shape than documented counts as absent: it must not stop a run by itself.
    """
    data = parse_object(body).get("data")
    if not isinstance(data, dict):
        raise UnreadableResponseError("an answer without a key in it")
    scopes = data.get("scopes")
    return KeyInfo(
        data.get("disabled") is True,
        tuple(scope for scope in scopes if isinstance(scope, str)) if isinstance(scopes, list) else None,
        _parse_limit(data.get("limit")),
        _usd(data.get("monthly_usage")) or 0.0,
    )


@dataclass(frozen=True, slots=True)
class KeyProblem:
    """Why no create with a key is accepted, to be read after "the key ...", and what helps."""

    code: str
    message: str
    remedy: str


KEY_REFUSED: Final = KeyProblem("key_refused", "was refused (401)", "put one that works into it")


def key_problem(key: KeyInfo) -> KeyProblem | None:
    """Return what the vendor has against a key, None when it has nothing."""
    if key.disabled:
        return KeyProblem("key_disabled", "is disabled", "enable it, or use another one")
    if key.scopes is not None and VIDEO_SCOPE not in key.scopes:
        scopes = ", ".join(key.scopes) or "none"
        remedy = f"give it the scope {VIDEO_SCOPE}, or use another one"
        return KeyProblem("key_scope", f"may not make videos (scopes: {scopes})", remedy)
    return None


def _parse_limit(limit: object) -> SpendingLimit | None:
    threshold_usd = _usd(limit.get("threshold")) if isinstance(limit, dict) else None
    if not isinstance(limit, dict) or threshold_usd is None:
        return None
    return SpendingLimit(parse_id(limit.get("retention")), threshold_usd)


def _usd(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if 0 <= value < math.inf else None
    except OverflowError:
        return None


@dataclass(frozen=True, slots=True)
class ChargedUsage:
    """One charge of the account: the generation that it is for, and its time as ISO 8601 text."""

    reference_id: str
    created: str


@dataclass(frozen=True, slots=True)
class TransactionPage:
    """A page of the account's charges, newest first; `next_cursor` is empty on the last one."""

    rows: tuple[ChargedUsage, ...]
    next_cursor: str


def parse_transactions(body: bytes) -> TransactionPage:
    """Read a page of `/v2/billing/transactions`; raises `UnreadableResponseError` when it lists nothing.

    Only `MODEL_USAGE` is a generation's charge; a transaction without a type counts as one.
    """
    payload = parse_object(body)
    items = payload.get("data")
    if not isinstance(items, list):
        raise UnreadableResponseError("transactions without a list of them")
    charges = tuple(
        ChargedUsage(
            parse_id(item.get("reference_id")),
            parse_id(item.get("created_at")) or parse_id(item.get("created")),
        )
        for item in items
        if isinstance(item, dict) and item.get("type", "MODEL_USAGE") == "MODEL_USAGE"
    )
    pagination = payload.get("pagination")
    return TransactionPage(
        charges, parse_id(pagination.get("next_cursor")) if isinstance(pagination, dict) else ""
    )
