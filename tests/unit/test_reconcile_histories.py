"""Seeded histories of a vendor and its client: nothing is paid twice, and honesty settles every doubt."""

from __future__ import annotations

import os

import pytest

from pipeline.reconcile import absence_proof
from tests.unit.vendor_history import live_through

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
