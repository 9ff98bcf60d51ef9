"""Why a create was answered with 401, 402 or 403: the key, its limit, the credits, or this one row. Pure.

A firewall or a moderation answers one prompt with the same 403 as an account without credits. What tells them
apart is what the account itself says when it is asked: `GET /v1/key` and `GET /v2/billing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import TYPE_CHECKING, Final

from pipeline.client.account import KEY_REFUSED, key_problem
from pipeline.client.create_result import AccountBlocked
from pipeline.client.responses import StatusError
from pipeline.errors import StopReason

if TYPE_CHECKING:
    from pipeline.client.account import KeyInfo, SpendingLimit

EMPTY_BALANCE_USD: Final = 0.05
"""A balance below this buys no clip of any model; it decides where a row's price is unknown."""

DAY_S: Final = 86_400.0
RESET_LAG_S: Final = 600.0
"""For how long after 00:00 UTC a key's usage may still be yesterday's."""

_LIMIT_WORDS: Final = ("limit", "quota", "threshold", "spend", "budget")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A create that the vendor refused in the account's name, and the price of its row where it is known.

    `held_usd` is what the run's generations that have not ended cost: money is held while they run, and
    whether the balance is without it is not documented.
    """

    http_status: int
    message: str
    price_usd: float | None = None
    held_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Cause:
    """Who a refusal belongs to. `blocked` holds what the account has shown against itself.

    Without it, `account_works` says whether the account has shown that it can pay for the row, so that the
    refusal is the row's own. False: not beyond what may be held for others. None: nobody can say.
    `suspected` is what would explain the refusal of several rows, and is no proof for that of one.
    `unanswered`: neither the key nor the account could be read, as in an outage.
    """

    blocked: AccountBlocked | None = None
    account_works: bool | None = None
    suspected: AccountBlocked | None = None
    unanswered: bool = False


def explain_refusal(
    refusal: Refusal,
    key: KeyInfo | StatusError,
    balance_usd: float | StatusError | None,
    *,
    key_source: str,
    now: float | None,
) -> Cause:
    """Return whose matter `refusal` is, by what `GET /v1/key` and `GET /v2/billing` answered.

    `now` is the vendor's time (epoch seconds), None where it is not known. The message that stops a run names
    the cause, what helps, and what the vendor said.
    """
    limit = _limit_problem(refusal, key, balance_usd, now)
    proven = limit is not None and _is_proven(refusal, key)
    blocked = _key_problem(key, key_source) or (limit if proven else None)
    blocked = blocked or _balance_problem(refusal, balance_usd)
    if blocked is not None:
        return Cause(_blocked_by(blocked, refusal))
    unreadable = isinstance(key, StatusError)  # a key that works may still lack the right to see the balance
    if unreadable and isinstance(balance_usd, StatusError) and balance_usd.http_status in (401, 402, 403):
        return Cause(AccountBlocked(_reason_of(refusal), refusal.message))
    if limit is not None:
        return Cause(suspected=_blocked_by(limit, refusal))
    if unreadable and isinstance(balance_usd, StatusError):
        return Cause(unanswered=True)
    if refusal.price_usd is None:
        return Cause()
    return Cause(account_works=_covers(balance_usd, refusal.price_usd + refusal.held_usd))


def resets_at(limit: SpendingLimit, now: float) -> float | None:
    """Return when a key's limit begins anew after `now` (epoch seconds, both); None: it never does.

    Limits reset at 00:00 UTC (vendor's documentation); that a week begins on Monday is an assumption.
    """
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match limit.retention:
        case "day":
            return (day + timedelta(days=1)).timestamp()
        case "week":
            return (day + timedelta(days=7 - day.weekday())).timestamp()
        case "month":
            return (day.replace(day=1) + timedelta(days=32)).replace(day=1).timestamp()
        case _:
            return None


_Problem = tuple[StopReason, str, float | None]


def _blocked_by(problem: _Problem, refusal: Refusal) -> AccountBlocked:
    reason, advice, wait_s = problem
    retry_after = None if wait_s is None else str(ceil(wait_s))
    return AccountBlocked(reason, f"{advice} ({refusal.message})", retry_after)


def _key_problem(key: KeyInfo | StatusError, source: str) -> _Problem | None:
    if isinstance(key, StatusError):
        problem = KEY_REFUSED if key.http_status == 401 else None
    else:
        problem = key_problem(key)
    if problem is None:
        return None
    return StopReason.KEY, f"the key read from {source} {problem.message}: {problem.remedy}", None


def _limit_problem(
    refusal: Refusal, key: KeyInfo | StatusError, balance_usd: float | StatusError | None, now: float | None
) -> _Problem | None:
    """A limit explains a refusal once the usage has no room for the row, unless the credits explain it."""
    limit = None if isinstance(key, StatusError) else key.limit
    if isinstance(key, StatusError) or limit is None:
        return None
    no_room = key.usage_usd + max(refusal.price_usd or 0.0, EMPTY_BALANCE_USD) > limit.threshold_usd
    if not no_room or (not _names_limit(refusal) and _covers(balance_usd, refusal.price_usd) is False):
        return None
    until = None if now is None else resets_at(limit, now)
    period = {"day": "daily ", "week": "weekly ", "month": "monthly "}.get(limit.retention, "")
    used_up = f"the key's {period}limit of {limit.threshold_usd:.2f} USD is used up: raise it"
    if limit.retention not in ("day", "week", "month"):
        return StopReason.CREDITS, f"{used_up}, or use another key", None
    when = datetime.fromtimestamp(until, UTC).strftime("%d %B, %H:%M UTC") if until else "00:00 UTC"
    advice = f"{used_up}, or go on after its reset ({when.lstrip('0')})"
    if limit.retention == "day":
        wait_s = until - now if until and now else None
        # A usage that has not been reset yet is no reason to wait for the day after.
        is_late = wait_s is not None and wait_s > DAY_S - RESET_LAG_S
        return StopReason.QUOTA, advice, None if is_late else wait_s
    return StopReason.CREDITS, advice, None


def _is_proven(refusal: Refusal, key: KeyInfo | StatusError) -> bool:
    """Return whether the usage shows that the limit is used up: it is the month's, whatever that counts."""
    limit = None if isinstance(key, StatusError) else key.limit
    return _names_limit(refusal) or (limit is not None and limit.retention not in ("day", "week"))


def _names_limit(refusal: Refusal) -> bool:
    return any(word in refusal.message.lower() for word in _LIMIT_WORDS)


def _balance_problem(refusal: Refusal, balance_usd: float | StatusError | None) -> _Problem | None:
    if _covers(balance_usd, refusal.price_usd) is not False:
        return None
    price = "" if refusal.price_usd is None else f", and the row costs {refusal.price_usd:.2f}"
    return StopReason.CREDITS, f"the account has {balance_usd:.2f} USD left{price}: top it up", None


def _covers(balance_usd: float | StatusError | None, price_usd: float | None) -> bool | None:
    """Return whether the credits pay for the row; None: it cannot be said."""
    if balance_usd is None or isinstance(balance_usd, StatusError):
        return None
    if balance_usd < max(price_usd or 0.0, EMPTY_BALANCE_USD):
        return False
    return None if price_usd is None else True


def _reason_of(refusal: Refusal) -> StopReason:
    return StopReason.KEY if refusal.http_status == 401 else StopReason.CREDITS
