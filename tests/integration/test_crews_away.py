"""Those of a crew who begin while the database is away wait for it, and say so."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.ledger import Ledger
from pipeline.model import State
from tests.integration.crews import Crew, crew, paid_once
from tests.integration.engines import House

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.ledgers import PostgresServer


async def test_who_begins_without_a_database_waits_for_it(tmp_path: Path, own_server: PostgresServer) -> None:
    async with House(tmp_path) as house, await Ledger.open(own_server.url("postgres")) as ledger:
        await ledger.add(await house.add(4))
        job = replace((await crew(house)).job, ledger=own_server.url("postgres"))
        team = Crew(house, job, await ledger.begin_epoch())

        async def bring_back(words: str) -> None:
            await team.until(lambda: any(words in said.message for look in team.seen for said in look.events))
            await asyncio.to_thread(own_server.start)

        await asyncio.to_thread(own_server.stop)
        back = asyncio.create_task(bring_back("the account: postgresql://keeper:***@127.0.0.1"))
        async with team.at_work(0):
            await back
            await asyncio.to_thread(own_server.stop)
            hand = team.hire()
            await bring_back(f"worker {hand.name}: postgresql://keeper:***@127.0.0.1")
            await team.until_done()
        assert await ledger.counts() == {State.DONE: 4}
        paid_once(house)
