"""What a run needs in hand before its first create may leave, opened and decided in the order that is safe.

It sends nothing that costs money and says nothing of the run; `start` has the single steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pipeline.cli.cost_prompt import agreed, estimate, price_list
from pipeline.cli.ledger_access import Pauses, held_ledger, secrets_of
from pipeline.cli.manifest_loading import cache_dir
from pipeline.cli.start import load_batch, other_manifest, plan_batch, same_vendor, start_sandbox
from pipeline.client import Api
from pipeline.client.catalog import Catalogue
from pipeline.results import LOG_NAME
from pipeline.results.run_log import Logbook
from pipeline.settings import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AsyncExitStack

    from pipeline.cli.cost_prompt import Estimate, Prices
    from pipeline.cli.manifest_loading import Loaded
    from pipeline.cli.request import Batch, Request
    from pipeline.ledger import Ledger
    from pipeline.plan import Plan
    from pipeline.settings import Settings

USUAL_INTERVAL_S: Final = 10.0
CATALOGUE_S: Final = 6.0
SANDBOX_DOUBT_S: Final = 600.0
SHORTEST_DOUBT_S: Final = 10.0
"""How long a row's absence from the sandbox's log proves nothing: its renderings and its log's lag, at
speed 1, and a margin at any speed."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run as it stands before anything is submitted; what is open in it belongs to the caller's stack.

    `batch` has its final settings and base URL. `epoch` is what the ledger answered when a cluster's
    epoch began, None for a run in this process. `other` warns of another manifest's folder, or is empty.
    """

    batch: Batch
    api: Api
    ledger: Ledger
    pauses: Pauses
    log: Logbook
    loaded: Loaded
    other: str
    epoch: tuple[int, frozenset[str]] | None
    plan: Plan
    prices: Prices
    cost: Estimate

    def agreed(self) -> bool:
        """Say whether the money may be spent: play money may, else it is asked where somebody can answer."""
        request = self.batch.request
        return request.sandbox or agreed(self.cost, assume_yes=request.yes)


def settings_of(request: Request, manifest_run: Mapping[str, Any]) -> Settings:
    """Flags > environment > the manifest's `run:` > defaults; the sandbox, being fast, has its own."""
    defaults: dict[str, Any] = {}
    if request.sandbox:
        speed = max(1.0, request.sandbox_speed)
        settled_s = max(SANDBOX_DOUBT_S / speed, SHORTEST_DOUBT_S)
        defaults = {"poll_interval": USUAL_INTERVAL_S / speed, "reconcile_after": settled_s}
    return resolve(
        [
            ("the command line", request.flags),
            ("the environment", request.environment),
            (f"{request.manifest}: run", manifest_run),
            ("defaults", defaults),
        ]
    )


async def prepare(stack: AsyncExitStack, batch: Batch) -> Prepared:
    """Open the API and the ledger on `stack`, make the plan durable, and learn what it will cost.

    Raises `VeobatchError` for whatever stands in the way; nothing is submitted here.
    """
    request, place = batch.request, batch.place
    base_url = batch.base_url or await start_sandbox(stack, batch)
    timeout_s = batch.settings.request_timeout
    api = await stack.enter_async_context(Api(base_url, batch.key, timeout_s=timeout_s))
    cache = None if request.sandbox else cache_dir()
    catalogue = Catalogue(api.plain, base_url, cache, timeout_s=CATALOGUE_S)
    loaded = await load_batch(batch, catalogue)
    settings = settings_of(request, loaded.manifest.run)
    pauses = Pauses()
    held = held_ledger(place, what=f"veobatch run {request.manifest}", pauses=pauses)
    ledger = await stack.enter_async_context(held)
    await same_vendor(ledger, sandbox=request.sandbox, home=place.home)
    other = await other_manifest(ledger, request.manifest)
    secrets = [batch.key.secret, *secrets_of(place.elsewhere)]
    log = stack.enter_context(Logbook(place.home / LOG_NAME, secrets))
    # Before anything is planned: workers that a killed driver left behind write nothing from here on.
    epoch = await ledger.begin_epoch() if request.cluster is not None else None
    resubmit = request.resubmit_in_doubt
    plan = await plan_batch(ledger, loaded.manifest, settings.name, request.retry, resubmit_in_doubt=resubmit)
    prices = await price_list(plan.records, loaded, catalogue, settings.assume_price)
    cost = await estimate(plan.records, prices, None if request.sandbox else api)
    decided = replace(batch, settings=settings, base_url=base_url)
    return Prepared(decided, api, ledger, pauses, log, loaded, other, epoch, plan, prices, cost)
