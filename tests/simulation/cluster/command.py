"""One `veobatch run --engine ray` in a simulated world, put together as the command does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio

from pipeline.client import ApiKey
from pipeline.cluster import ClusterConfig
from pipeline.cluster.driver import ClusterDriver
from pipeline.ledger import Ledger
from pipeline.runner.on_cluster import ArtifactCheck
from pipeline.storage.local import LocalStore
from tests.simulation.book import ROOT
from tests.simulation.command import (
    INTERRUPTED,
    Opened,
    Request,
    make_observers,
    open_plan,
    run_guarded,
    run_to_end,
)
from tests.simulation.network import BASE_URL, SimApi
from tests.simulation.posix import SimPath
from tests.simulation.vendor import PRICE_USD

if TYPE_CHECKING:
    from pipeline.cli.signals import SignalGuard
    from tests.simulation.machine import Process

LEDGER: Final = "postgresql://keeper:secret@database/ledger"
LEASE_S: Final = 30.0


async def run_cluster_command(process: Process, request: Request) -> int:
    """Carry out a run on a cluster; return its exit code."""
    return await run_guarded(process, request, _run)


async def _run(process: Process, request: Request, guard: SignalGuard) -> int:
    def on_pause(message: str) -> None:
        process.world.tell("SAYS", message)

    ledger = await Ledger.open(LEDGER, exclusive=True, on_pause=on_pause)
    async with ledger, SimApi(process, ApiKey(request.key, "the test")) as api:
        opened: Opened | None = None
        with anyio.CancelScope() as scope, guard.cancelling(scope):
            opened = await _open(process, api, ledger, request)
        if scope.cancelled_caught or opened is None:
            return guard.exit_code or INTERRUPTED
        return await run_to_end(process, opened, guard, ledger)


async def _open(process: Process, api: SimApi, ledger: Ledger, request: Request) -> Opened:
    epoch = await ledger.begin_epoch()
    notes, records = await open_plan(api, ledger, request)
    results, observer = make_observers(process, ledger, notes)
    root: Any = SimPath(ROOT)
    check = ArtifactCheck(records, ledger, LocalStore(root), request.settings, observer)
    await check.run()
    config = ClusterConfig(
        ledger=LEDGER,
        batch="default",
        output=ROOT,
        base_url=BASE_URL,
        api_key=api.key,
        settings=request.settings,
        workers=process.world.options.workers,
        lease_s=LEASE_S,
        assumed_price=PRICE_USD,
    )
    driver = ClusterDriver(list(check.records.values()), config, ledger, epoch, observer, address="auto")
    driver.view.unchecked.update(check.unchecked)
    if check.error is not None:
        driver.stop_submitting(check.error)
    return Opened(driver, notes, results)
