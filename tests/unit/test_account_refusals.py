"""What a refusal in the account's name does to its row, by what the account and the other rows say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pipeline import backoff
from pipeline.client import AccountBlocked, Cause
from pipeline.errors import StopReason
from pipeline.model import State
from pipeline.run_state import RunState
from pipeline.submit.account_refusals import MAX_REFUSALS, AccountRefusals
from pipeline.submit.refused_rows import MAX_ROWS, MIN_ROWS
from tests.unit.samples import record

if TYPE_CHECKING:
    from pipeline.client import Refusal
    from pipeline.model import Record
    from pipeline.run_context import RunContext

PRICE_USD = 0.4
REFUSED = AccountBlocked(StopReason.CREDITS, "HTTP 403: Forbidden")


class Account:
    """A run of some rows, whose account gives the same answer whenever it is asked."""

    def __init__(self, cause: Cause) -> None:
        self.cause, self.asked, self.failed = cause, list["Refusal"](), list["Record"]()
        self.rows = [record(State.PENDING, f"row-{number}", number) for number in range(MAX_ROWS)]
        self.state = RunState.from_records(self.rows)
        self.stops: list[StopReason] = []
        deps = SimpleNamespace(api=self, price_of=lambda _: PRICE_USD, clock=lambda: 0.0, wall=lambda: 7.0)
        run = SimpleNamespace(
            state=self.state,
            deps=deps,
            settings=SimpleNamespace(wait_for_quota=True),
            commit=self.commit,
            report_event=lambda *_: None,
            stop_submitting=lambda reason, _: self.stops.append(reason),
        )
        policy = backoff.policy_for_interval(10.0)
        self.refusals = AccountRefusals(cast("RunContext", run), policy, self.wait_out)
        self.waited: list[AccountBlocked] = []

    async def explain_refusal(self, refusal: Refusal) -> Cause:
        assert self.refusals.hold_creates()
        self.asked.append(refusal)
        return self.cause

    async def commit(self, _: Record, after: Record) -> Record:
        self.failed.append(after)
        return after

    async def wait_out(self, _: Record, refusal: AccountBlocked) -> None:
        self.waited.append(refusal)

    async def refuse(self, number: int = 0, result: AccountBlocked = REFUSED) -> None:
        await self.refusals.on_refused(self.rows[number], result, self.refusals.rows.on_sent())

    def accept(self) -> None:
        self.refusals.rows.on_accepted(self.refusals.rows.on_sent())


@pytest.mark.parametrize(("account_works", "fails"), [(True, True), (None, True), (False, False)])
async def test_no_row_fails_while_the_credits_may_be_held_for_others(
    account_works: bool | None, fails: bool
) -> None:
    account = Account(Cause(account_works=account_works))
    account.state.in_flight.add(account.rows[1].key)
    account.state.in_doubt |= {account.rows[1].key, account.rows[2].key}
    await account.refuse()
    account.accept()
    await account.refuse()
    assert [asked.held_usd for asked in account.asked] == [2 * PRICE_USD] * 2
    assert [row.state for row in account.failed] == ([State.FAILED] if fails else [])
    assert account.stops == []


async def test_a_row_refused_beside_held_credits_is_left_in_the_end_and_stops_nothing() -> None:
    account = Account(Cause(account_works=False))
    for _ in range(MAX_REFUSALS):
        await account.refuse()
        account.accept()
    assert "others were accepted" in account.state.unfinished[account.rows[0].key]
    assert (account.failed, account.stops) == ([], [])


@pytest.mark.parametrize("account_works", [True, None])
@pytest.mark.parametrize("reason", [StopReason.KEY, StopReason.UNREACHABLE, StopReason.MODEL])
async def test_a_refused_key_a_redirect_and_a_missing_model_fail_no_row(
    account_works: bool | None, reason: StopReason
) -> None:
    account = Account(Cause(account_works=account_works))
    for tried in range(1, MAX_REFUSALS + 1):
        assert (account.failed, account.state.unfinished, account.stops) == ([], {}, [])
        await account.refuse(0, AccountBlocked(reason, "HTTP 401: Unauthorized"))
        account.accept()
        queued = [key for not_before, _, key in account.state.pending if not_before > 0]
        assert queued == [account.rows[0].key] * min(tried, MAX_REFUSALS - 1)
    assert (account.failed, account.stops) == ([], [])
    assert "refused, though" in account.state.unfinished[account.rows[0].key]


async def test_rows_go_singly_until_one_is_accepted_and_stop_if_none_is() -> None:
    account = Account(Cause())
    account.state.submitting = 1
    assert not account.refusals.hold_creates()
    await account.refuse(0)
    assert account.refusals.hold_creates()
    account.state.submitting = 0
    assert not account.refusals.hold_creates()
    await account.refuse(1)
    assert account.stops == []
    await account.refuse(2)
    assert account.stops == [StopReason.CREDITS]


async def test_rows_that_are_refused_though_the_account_works_are_left_aside_and_stop_nothing() -> None:
    account = Account(Cause(account_works=True))
    for number in range(MIN_ROWS + 1):
        for _ in range(MAX_REFUSALS):
            await account.refuse(number)
    assert (account.failed, account.stops) == ([], [])
    assert len(account.state.unfinished) == MIN_ROWS + 1
    assert all("though the account works" in why for why in account.state.unfinished.values())


async def test_an_account_that_refuses_every_row_is_closed_whatever_it_says_of_itself() -> None:
    account = Account(Cause(account_works=True))
    for number in range(MAX_ROWS):
        assert account.stops == []
        for _ in range(MAX_REFUSALS):
            await account.refuse(number)
    assert set(account.stops) == {StopReason.CREDITS}


@pytest.mark.parametrize("reason", [StopReason.CREDITS, StopReason.KEY, StopReason.UNREACHABLE])
@pytest.mark.parametrize("cause", [Cause(account_works=True), Cause(unanswered=True)])
async def test_what_refuses_all_rows_after_it_has_accepted_others_is_waited_out(
    cause: Cause, reason: StopReason
) -> None:
    account, refusal = Account(cause), AccountBlocked(reason, "default backend")
    account.accept()
    for number in range(MIN_ROWS + 1):
        await account.refuse(number, refusal)
    assert (account.failed, account.stops, account.state.unfinished) == ([], [], {})
    assert account.waited == [refusal] * 2


@pytest.mark.parametrize("cause", [Cause(), Cause(account_works=False), Cause(suspected=REFUSED)])
async def test_what_may_be_the_accounts_stops_the_run_also_after_others_were_accepted(cause: Cause) -> None:
    account = Account(cause)
    account.accept()
    for number in range(MIN_ROWS):
        await account.refuse(number)
    assert (account.stops, account.waited) == ([StopReason.CREDITS], [])


@pytest.mark.parametrize("header", ["0", "Thu, 01 Jan 1970 00:00:07 GMT", "0.001"])
async def test_a_quota_that_names_no_wait_is_asked_ever_less_often(header: str) -> None:
    account, pauses = Account(Cause()), []
    for number in range(6):
        account.state.paused_until = 0.0
        await account.refuse(number, AccountBlocked(StopReason.QUOTA, "free-tier limit", header))
        pauses.append(account.state.paused_until)
    assert pauses == sorted(pauses)
    assert pauses[0] >= 1.0
    assert pauses[-1] >= 30.0
    account.accept()
    account.state.paused_until = 0.0
    await account.refuse(0, AccountBlocked(StopReason.QUOTA, "free-tier limit", header))
    assert account.state.paused_until < pauses[1]
    assert account.stops == []


@pytest.mark.parametrize("reason", [StopReason.KEY, StopReason.UNREACHABLE, StopReason.MODEL])
async def test_a_key_an_address_or_a_model_that_is_wrong_from_the_start_is_told_after_few_rows(
    reason: StopReason,
) -> None:
    account = Account(Cause(account_works=True))
    for number in range(MIN_ROWS):
        assert account.stops == []
        await account.refuse(number, AccountBlocked(reason, "refused"))
    assert (account.stops, account.waited) == ([reason], [])


async def test_a_model_that_the_vendor_says_is_gone_is_not_waited_for_also_after_it_was_accepted() -> None:
    account = Account(Cause(account_works=True))
    account.accept()
    for number in range(MIN_ROWS):
        await account.refuse(number, AccountBlocked(StopReason.MODEL, "the vendor has no such model"))
    assert (account.stops, account.waited) == ([StopReason.MODEL], [])


@pytest.mark.parametrize("reason", [StopReason.KEY, StopReason.UNREACHABLE])
@pytest.mark.parametrize("account_works", [None, False])
async def test_a_401_and_a_redirect_are_waited_out_whatever_is_known_of_the_credits(
    account_works: bool | None, reason: StopReason
) -> None:
    account = Account(Cause(account_works=account_works))
    account.accept()
    for number in range(MIN_ROWS):
        await account.refuse(number, AccountBlocked(reason, "default backend"))
    assert (account.stops, len(account.waited)) == ([], 1)


async def test_a_limit_that_may_be_used_up_stops_the_run_also_when_a_401_says_so() -> None:
    account = Account(Cause(suspected=REFUSED))
    account.accept()
    for number in range(MIN_ROWS):
        await account.refuse(number, AccountBlocked(StopReason.KEY, "HTTP 401"))
    assert (account.stops, account.waited) == ([StopReason.CREDITS], [])


async def test_rows_that_each_were_refused_beside_accepted_ones_fail_however_many_they_are() -> None:
    account = Account(Cause(account_works=True))
    for _ in range(2):
        for number in range(MAX_ROWS):
            await account.refuse(number)
            if not account.failed:
                account.accept()
    assert len(account.failed) == MAX_ROWS
    assert (account.stops, account.waited) == ([], [])


@pytest.mark.parametrize("is_left", [True, False])
async def test_an_author_is_told_what_may_be_refused_of_a_row(is_left: bool) -> None:
    account = Account(Cause(account_works=True))
    for _ in range(MAX_REFUSALS if is_left else 2):
        await account.refuse()
        if not is_left:
            account.accept()
    failures = [row.failure.message for row in account.failed if row.failure]
    (told,) = [*account.state.unfinished.values(), *failures]
    witness = "the account works" if is_left else "others were accepted"
    assert told == f"refused, though {witness}; it may be its prompt or its picture: {REFUSED.message}"


async def test_creates_that_the_quota_refuses_together_lengthen_its_pause_once() -> None:
    account = Account(Cause())
    for number in range(MAX_ROWS):
        await account.refuse(number, AccountBlocked(StopReason.QUOTA, "free-tier limit", "0"))
    assert account.state.paused_until <= 2.0
