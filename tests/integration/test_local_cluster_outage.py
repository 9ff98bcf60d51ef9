"""Those of a crew who begin while the database is away wait for it, and say so."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.ledger import Ledger
from pipeline.model import State
from tests.integration.engine_harness import EngineHarness
from tests.integration.local_cluster import LocalCluster, assert_paid_once, make_local_cluster

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.ledger_servers import PostgresServer


async def test_worker_started_without_database_waits(tmp_path: Path, own_server: PostgresServer) -> None:
    async with EngineHarness(tmp_path) as house, await Ledger.open(own_server.url("postgres")) as ledger:
        await ledger.add(await house.add(4))
        job = replace((await make_local_cluster(house)).job, ledger=own_server.url("postgres"))
        team = LocalCluster(house, job, await ledger.begin_epoch())

        async def bring_back(words: str) -> None:
            await team.wait_until(
                lambda: any(words in said.message for look in team.snapshots for said in look.events)
            )
            await asyncio.to_thread(own_server.start)

        await asyncio.to_thread(own_server.stop)
        back = asyncio.create_task(bring_back("the coordinator: postgresql://keeper:***@127.0.0.1"))
        async with team.running(0):
            await back
            await asyncio.to_thread(own_server.stop)
            hand = team.start_worker()
            await bring_back(f"worker {hand.name}: postgresql://keeper:***@127.0.0.1")
            await team.wait_until_done()
        assert await ledger.counts() == {State.DONE: 4}
        assert_paid_once(house)
