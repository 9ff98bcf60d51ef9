"""Seeded histories of a vendor and its client: nothing is paid twice, and honesty settles every doubt."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from pipeline.model import State
from pipeline.reconcile import absence_proof, reconciler
from pipeline.reconcile.charges import Charges, fetch_charges
from pipeline.reconcile.evidence import MARGIN_S, Premise
from pipeline.reconcile.in_doubt import StillInDoubt
from tests.unit.vendor_history import HistoryClient, HistoryVendor, live_through

if TYPE_CHECKING:
    from pipeline.client import Api

pytestmark = pytest.mark.no_cover  # long computations; shorter tests cover the same lines

SEEDS = int(os.environ.get("VEOBATCH_HISTORY_SEEDS", "100"))
MAX_SEEDS = 700


async def test_no_history_pays_twice_and_honest_vendor_settles_every_row() -> None:
    for seed in range(SEEDS):
        client = await live_through(seed)
        assert client.paid_twice() == [], seed
        assert client.in_doubt() == [], (seed, [client.missing[key].missing for key in client.in_doubt()])


@pytest.mark.parametrize(
    "premise",
    ["check_key", "check_pages", "check_witnesses", "check_log_advanced", "check_charges", "check_time"],
)
async def test_without_a_premise_some_history_pays_twice(
    premise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absence_proof, premise, lambda *_: None)
    for seed in range(MAX_SEEDS):
        if (await live_through(seed)).paid_twice():
            return
    pytest.fail(f"no history needs {premise}")


LATE_S = 3600.0


async def begin_late() -> HistoryClient:
    """Let three creates be called, and leave an hour later; the process dies, and another one begins.

    The answer to one comes, that to another is lost, and the third never arrives. Nothing that the process
    sees tells how late they left.
    """
    rng = random.Random(3)
    vendor = HistoryVendor(rng)
    client = HistoryClient(vendor, rng)
    client.submit("early", fate="ok")
    vendor.now += 5000.0
    dated_at = vendor.vendor_now()
    vendor.now += LATE_S
    for key, fate in (("witness", "ok"), ("lost", "accepted"), ("never", "never")):
        client.submit(key, fate=fate, dated_at=dated_at)
    witness, lost = vendor.submissions[-2:]
    witness.finish = witness.appears = vendor.now + 30.0
    lost.finish, lost.appears = vendor.now + 1790.0, vendor.now + 2600.0
    client.restart()
    return client


async def live_on(client: HistoryClient, seconds: float) -> None:
    for _ in range(int(seconds / 60.0)):
        client.vendor.now += 60.0
        client.poll()
        await client.reconcile()


async def test_what_may_have_left_as_late_as_a_witness_did_is_waited_for_as_long() -> None:
    client = await begin_late()
    await live_on(client, 2590.0)
    assert client.in_doubt() == ["lost", "never"]
    await live_on(client, 600.0)
    assert client.in_doubt() == []
    assert client.records["lost"].submission_no == 1
    assert client.records["never"].submission_no == 2
    assert client.paid_twice() == []


async def test_times_that_count_as_exact_pay_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "clock_error_s", lambda *_: 0.0)
    client = await begin_late()
    await live_on(client, 2590.0)
    assert client.paid_twice() == ["lost"]


async def test_charges_are_read_back_as_far_as_the_times_may_be_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_back_to: list[float] = []

    async def fetch(api: Api, since: float, *, gap_s: float) -> Charges:
        read_back_to.append(since)
        return await fetch_charges(api, since, gap_s=gap_s)

    client = await begin_late()
    sent_at = client.records["never"].vendor_sent_at or 0.0
    monkeypatch.setattr(reconciler, "fetch_charges", fetch)
    await live_on(client, 3200.0)
    assert read_back_to
    assert sent_at - MARGIN_S - LATE_S - 2.0 <= min(read_back_to) <= sent_at - MARGIN_S - LATE_S


async def test_a_log_of_long_ago_is_read_as_far_as_the_times_may_be_wrong() -> None:
    """What was read covers an hour around an old row; a witness that left later asks for more of it."""
    client = await begin_late()
    client.vendor.now += 30 * 86_400.0
    client.poll()
    client.submit("new", fate="ok")
    asking = client.reconciler()

    async def lacks(key: str) -> set[Premise]:
        rows = [row for row in client.records.values() if row.state is State.IN_DOUBT]
        _, verdicts = await asking.ask(rows, client.records.values(), {})
        verdict = verdicts[key]
        return {one.premise for one in verdict.missing} if isinstance(verdict, StillInDoubt) else set()

    client.records = {key: row for key, row in client.records.items() if key != "lost"}
    assert Premise.WINDOW in await lacks("never")
    assert Premise.WINDOW not in await lacks("never")
