"""The account as the vendor's answers show it: whose key it is, and what was charged. Pure."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.client.responses import UnreadableResponseError, parse_object, storable_text

if TYPE_CHECKING:
    from collections.abc import Mapping


def key_id(secret: str, salt: str) -> str:
    """Return what identifies a key within one ledger (`salt`) and reveals no part of it."""
    return hmac.new(salt.encode(), secret.encode("utf-8", "replace"), "sha256").hexdigest()[:32]


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
        ChargedUsage(_text(item, "reference_id"), _text(item, "created_at") or _text(item, "created"))
        for item in items
        if isinstance(item, dict) and item.get("type", "MODEL_USAGE") == "MODEL_USAGE"
    )
    pagination = payload.get("pagination")
    return TransactionPage(charges, _text(pagination, "next_cursor") if isinstance(pagination, dict) else "")


def _text(item: Mapping[str, object], name: str) -> str:
    value = item.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return storable_text(value) if isinstance(value, str) else ""
