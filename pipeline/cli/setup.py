"""What a run needs in hand before its first create may leave, opened and decided in the order that is safe.

It sends nothing that costs money and says nothing of the run; `start` has the single steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pipeline.cli.cost_prompt import confirm_cost, estimate_cost, load_prices
from pipeline.cli.ledger_access import ReconnectNotifier, ledger_passwords, open_exclusive_ledger
from pipeline.cli.manifest_loading import cache_dir
from pipeline.cli.start import (
    check_vendor,
    load_checked_manifest,
    other_manifest_warning,
    plan_batch,
    start_sandbox,
)
from pipeline.client import Api
from pipeline.client.catalog import Catalog
from pipeline.results import LOG_NAME
from pipeline.results.run_log import RunLog
from pipeline.settings import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AsyncExitStack

    from pipeline.cli.cost_prompt import CostEstimate, PriceTable
    from pipeline.cli.manifest_loading import LoadedManifest
    from pipeline.cli.request import RunConfig, RunOptions
    from pipeline.ledger import Ledger
    from pipeline.plan import BatchPlan
    from pipeline.settings import Settings

SANDBOX_POLL_INTERVAL_S: Final = 10.0
CATALOGUE_TIMEOUT_S: Final = 6.0
SANDBOX_RECONCILE_AFTER_S: Final = 600.0
MIN_RECONCILE_AFTER_S: Final = 10.0
"""How long a row's absence from the sandbox's log proves nothing: its renderings and its log's lag, at
speed 1, and a margin at any speed."""


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run as it stands before anything is submitted; what is open in it belongs to the caller's stack.

    `batch` has its final settings and base URL. `epoch` is what the ledger answered when a cluster's
    epoch began, None for a run in this process. `other` warns of another manifest's folder, or is empty.
    """

    config: RunConfig
    api: Api
    ledger: Ledger
    reconnect_notifier: ReconnectNotifier
    run_log: RunLog
    loaded: LoadedManifest
    manifest_warning: str
    epoch: tuple[int, frozenset[str]] | None
    plan: BatchPlan
    prices: PriceTable
    cost_estimate: CostEstimate

    def confirm_cost(self) -> bool:
        """Say whether the money may be spent: play money may, else it is asked where somebody can answer."""
        options = self.config.options
        return options.sandbox or confirm_cost(self.cost_estimate, assume_yes=options.yes)


def resolve_settings(options: RunOptions, manifest_run: Mapping[str, Any]) -> Settings:
    """Flags > environment > the manifest's `run:` > defaults; the sandbox, being fast, has its own."""
    defaults: dict[str, Any] = {}
    if options.sandbox:
        speed = max(1.0, options.sandbox_speed)
        reconcile_after_s = max(SANDBOX_RECONCILE_AFTER_S / speed, MIN_RECONCILE_AFTER_S)
        defaults = {"poll_interval": SANDBOX_POLL_INTERVAL_S / speed, "reconcile_after": reconcile_after_s}
    return resolve(
        [
            ("the command line", options.flags),
            ("the environment", options.environment),
            (f"{options.manifest}: run", manifest_run),
            ("defaults", defaults),
        ]
    )


async def prepare(stack: AsyncExitStack, config: RunConfig) -> PreparedRun:
    """Open the API and the ledger on `stack`, make the plan durable, and learn what it will cost.

    Raises `VeobatchError` for whatever stands in the way; nothing is submitted here.
    """
    options, paths = config.options, config.paths
    base_url = config.base_url or await start_sandbox(stack, config)
    timeout_s = config.settings.request_timeout
    api = await stack.enter_async_context(Api(base_url, config.key, timeout_s=timeout_s))
    cache = None if options.sandbox else cache_dir()
    catalogue = Catalog(api.keyless_session, base_url, cache, timeout_s=CATALOGUE_TIMEOUT_S)
    loaded = await load_checked_manifest(config, catalogue)
    settings = resolve_settings(options, loaded.manifest.run)
    notifier = ReconnectNotifier()
    open_ledger = open_exclusive_ledger(paths, what=f"veobatch run {options.manifest}", notifier=notifier)
    ledger = await stack.enter_async_context(open_ledger)
    await check_vendor(ledger, sandbox=options.sandbox, folder=paths.folder)
    manifest_warning = await other_manifest_warning(ledger, options.manifest)
    secrets = [config.key.secret, *ledger_passwords(paths.external_ledger)]
    run_log = stack.enter_context(RunLog(paths.folder / LOG_NAME, secrets))
    # Before anything is planned: workers that a killed driver left behind write nothing from here on.
    epoch = await ledger.begin_epoch() if options.cluster is not None else None
    resubmit = options.resubmit_in_doubt
    plan = await plan_batch(ledger, loaded.manifest, settings.name, options.retry, resubmit_in_doubt=resubmit)
    prices = await load_prices(plan.records, loaded, catalogue, settings.assume_price)
    cost_estimate = await estimate_cost(plan.records, prices, None if options.sandbox else api)
    final_config = replace(config, settings=settings, base_url=base_url)
    return PreparedRun(
        final_config,
        api,
        ledger,
        notifier,
        run_log,
        loaded,
        manifest_warning,
        epoch,
        plan,
        prices,
        cost_estimate,
    )
