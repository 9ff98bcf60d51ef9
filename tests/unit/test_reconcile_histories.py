"""Seeded histories of a vendor and its client: nothing is paid twice, and honesty settles every doubt."""

from __future__ import annotations

import os

from tests.unit.vendor_history import live_through

SEEDS = int(os.environ.get("VEOBATCH_HISTORY_SEEDS", "100"))


async def test_no_history_pays_twice_and_honest_vendor_settles_every_row() -> None:
    for seed in range(SEEDS):
        client = await live_through(seed)
        assert client.paid_twice() == [], seed
        assert client.in_doubt() == [], (seed, [client.missing[key].missing for key in client.in_doubt()])
