"""Opening what a run works with: the API, and the batch's folder, ledger and log."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from pipeline.batch.ledger_access import (
    SANDBOX_VENDOR,
    ReconnectNotifier,
    ledger_passwords,
    open_exclusive_ledger,
)
from pipeline.batch.other_batches import (
    reject_batch_of_another_manifest,
    reject_rows_paid_elsewhere,
    remember_folder,
    run_has_begun,
)
from pipeline.batch.ownership import check_remote_output, claim_folder, set_aside_lost_batch
from pipeline.batch.paths import has_batch
from pipeline.batch.record_plan import check_vendor, other_manifest_warnings
from pipeline.client import Api
from pipeline.client.catalog import Catalog
from pipeline.results import LOG_NAME
from pipeline.results.run_log import RunLog
from pipeline.runner.embedded_sandbox import start_sandbox
from pipeline.runner.manifest_loading import cache_dir
from pipeline.runner.preflight import fit_to_open_files
from pipeline.submit.submission_journal import SubmissionJournal

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from pipeline.batch.ownership import FolderClaim
    from pipeline.ledger import Ledger
    from pipeline.manifest import Manifest
    from pipeline.runner.config import RunConfig

CATALOGUE_TIMEOUT_S: Final = 6.0


@dataclass(frozen=True, slots=True)
class OpenedBatch:
    """The batch's ledger, held by this run alone, with its log and what the folder's claim says.

    `epoch` is what the ledger answered when a cluster's epoch began, None for a run in this process.
    """

    ledger: Ledger
    claim: FolderClaim
    reconnect_notifier: ReconnectNotifier
    run_log: RunLog
    epoch: tuple[int, frozenset[str]] | None
    journal: SubmissionJournal


async def open_api(
    stack: AsyncExitStack, config: RunConfig, file_limit: int
) -> tuple[RunConfig, Api, Catalog, tuple[str, ...]]:
    """Open the API, or start the sandbox; return it with the final base URL and the sandbox's warnings."""
    warnings: tuple[str, ...] = ()
    sandbox = config.request.sandbox
    if not config.base_url:
        url, warnings = await start_sandbox(stack, config.paths.folder, config.request.sandbox_speed)
        config = replace(config, base_url=url)
    _, connections, _ = fit_to_open_files(config.settings, file_limit)
    timeout_s, name = config.settings.request_timeout, SANDBOX_VENDOR if sandbox else ""
    api = Api(config.base_url, config.key, timeout_s=timeout_s, connections=connections, name=name)
    await stack.enter_async_context(api)
    cache = None if sandbox else cache_dir()
    catalogue = Catalog(api.keyless_session, api.base_url, cache, timeout_s=CATALOGUE_TIMEOUT_S)
    return config, api, catalogue, warnings


async def open_batch(
    stack: AsyncExitStack, config: RunConfig, manifest: Manifest, *, lost: bool
) -> OpenedBatch:
    """Lock the folder, open its ledger and log on `stack` and make the folder its own.

    `lost` moves the files of a batch without its ledger out of the way first. Raises `UsageError` when the
    folder, or rows that are paid for, belong to another batch.
    """
    request, paths, notifier = config.request, config.paths, ReconnectNotifier()
    sandbox, begin_anew = request.sandbox, request.begin_anew
    # Who says where the batch is to be, or to begin it, is not asked.
    is_chosen = bool(begin_anew or request.output or request.ledger_choice.batch)
    may_pay_again, is_new = not (sandbox or is_chosen), not has_batch(paths)
    if may_pay_again and is_new:  # before a ledger is made
        await reject_rows_paid_elsewhere(manifest, paths)
    open_ledger = open_exclusive_ledger(
        paths,
        what=f"veobatch run {request.manifest}",
        notifier=notifier,
        before_open=partial(set_aside_lost_batch, paths, sandbox=sandbox) if lost else None,
    )
    ledger = await stack.enter_async_context(open_ledger)
    if may_pay_again and not is_new and not await run_has_begun(ledger):
        await reject_rows_paid_elsewhere(manifest, paths)
    await check_vendor(ledger, sandbox=sandbox, folder=paths.folder)
    await check_remote_output(config.store, ledger, paths, request.manifest, begin_anew=begin_anew)
    if not is_chosen:
        await reject_batch_of_another_manifest(ledger, manifest, paths)
    claim = await claim_folder(ledger, paths, request.manifest, sandbox=sandbox, begin_anew=begin_anew)
    if not sandbox:
        remember_folder(paths.folder)
    claim = replace(claim, notes=(*claim.notes, *await other_manifest_warnings(ledger, request.manifest)))
    secrets = [config.key.secret, *ledger_passwords(paths.external_ledger)]
    run_log = stack.enter_context(RunLog(paths.folder / LOG_NAME, secrets))
    # Before anything is planned: workers that a killed driver left behind write nothing from here on.
    epoch = await ledger.begin_epoch() if request.cluster is not None else None
    journal = SubmissionJournal(ledger.identity, on_cluster=epoch is not None)
    return OpenedBatch(ledger, claim, notifier, run_log, epoch, journal)
