"""How a run starts: the checked manifest, the plan made durable, and what it will cost.

Everything here happens before the first create may leave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread

from pipeline.batch.one_time_requests import OneTimeRequests
from pipeline.batch.ownership import check_folder
from pipeline.batch.pictures import check_pictures
from pipeline.batch.retakes import plan_retakes
from pipeline.batch_plan import BatchPlan
from pipeline.client import key_id
from pipeline.client.reachability import Preflight, check_api
from pipeline.errors import StopReason, StopRun, UsageError
from pipeline.events import Event, Level, Topic
from pipeline.model import State
from pipeline.reconcile.origin import origin_notes
from pipeline.results.receipts import META_NAME as RECEIPTS_META
from pipeline.runner.config import resolve_settings
from pipeline.runner.manifest_loading import (
    LoadedManifest,
    fetch_other_models,
    image_warnings,
    known_rules,
)
from pipeline.runner.open_batch import open_api, open_batch
from pipeline.runner.planning import plan_run, refuse_rewritten
from pipeline.runner.preflight import (
    as_error,
    fit_to_open_files,
    raise_open_file_limit,
    space_warning,
    warnings_of,
)
from pipeline.runner.previous_run_end import last_end_note
from pipeline.runner.retired_models import check_retired
from pipeline.runner.run_cost_estimate import estimate_cost, load_prices
from pipeline.selection import submittable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AsyncExitStack

    from pipeline.batch.request import RunRequest
    from pipeline.batch.retakes import Retakes
    from pipeline.client import Api
    from pipeline.client.catalog import Catalog
    from pipeline.client.reachability import Finding
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.manifest import ParsedManifest
    from pipeline.model import Record
    from pipeline.runner.config import RunConfig
    from pipeline.runner.open_batch import OpenedBatch
    from pipeline.runner.run_cost_estimate import CostEstimate, PriceTable
    from pipeline.settings import Settings

FINISHED_STATES: Final = frozenset({State.DONE, State.FAILED})


@dataclass(slots=True)
class PreparedRun:
    """A run as it stands before anything is submitted; what is open in it belongs to the caller's stack.

    `config` has its final settings and base URL. `notes` are warnings; `runs` counts the batch's runs;
    `submittable` are the keys of the rows that this run may submit, None for all; `left_out` those of failed
    rows that were to be tried again and are not among them. `retakes` are new extra takes, None without any.
    `obstacle` is why the API cannot be used; `submit_error` why nothing can be submitted while rows that are
    paid for can be fetched. `submits` is False where nothing is: what was asked for this once is taken back.
    """

    config: RunConfig
    api: Api
    batch: OpenedBatch
    loaded: LoadedManifest
    notes: tuple[str, ...]
    plan: BatchPlan
    prices: PriceTable
    cost_estimate: CostEstimate
    runs: int
    submittable: frozenset[str] | None
    left_out: frozenset[str]
    retakes: Retakes | None
    obstacle: Finding | None = None
    submit_error: StopRun | None = None
    submits: bool = True
    _current: Callable[[], Sequence[Record]] | None = None

    def requests(self) -> OneTimeRequests:
        """Return what the user has asked for this once, to be committed when the run begins to submit."""
        pays_rewritten = self.submits and self.plan.seems_rewritten
        # A run of some rows says nothing of the others: the next one asks again.
        is_for_all = self.submits and self.submit_error is None and self.submittable is None
        journal = self.batch.journal if is_for_all and self.config.request.resubmit_in_doubt else None
        return OneTimeRequests(self.plan.requeues, self.retakes, pays_rewritten, journal)

    def submit_nothing(self, error: StopRun | None) -> None:
        """Take back what was asked for this once: `error`, or a signal, keeps the run from submitting."""
        self.submit_error, self.retakes, self.submits = self.submit_error or error, None, False
        self.plan = self.plan.submitting_only(frozenset())

    def hand_over(self, current: Callable[[], Sequence[Record]]) -> None:
        """Forget the plan, whose rows an engine has now: `current` returns them.

        A batch of new rows would be held twice otherwise, as it was and as it is.
        """
        self.plan, self._current = BatchPlan.empty(), current

    def records(self) -> Sequence[Record]:
        """Return the rows as they stand now."""
        return self.plan.records if self._current is None else self._current()


async def prepare(
    stack: AsyncExitStack,
    config: RunConfig,
    parsed: ParsedManifest,
    on_rewritten: Callable[[BatchPlan], None] = refuse_rewritten,
) -> PreparedRun:
    """Open the API and the ledger on `stack`, make the plan durable, and learn what it will cost.

    What the user asks for this once is in the plan and not yet in the ledger: see `PreparedRun.requests`.
    Raises `VeobatchError`, also by `on_rewritten`, which may refuse a plan that pays for most rows again.
    """
    request, paths = config.request, config.paths
    # First, and only reading: a folder that cannot be used is said before the vendor is asked.
    lost = check_folder(paths, request.manifest, sandbox=request.sandbox, begin_anew=request.begin_anew)
    file_limit = raise_open_file_limit()
    config, api, catalogue, sandbox_warnings = await open_api(stack, config, file_limit)
    loaded = await _load_checked_manifest(config, parsed, catalogue)
    settings, _, limit_note = fit_to_open_files(resolve_settings(request, loaded.manifest.run), file_limit)
    config = replace(config, settings=settings)
    batch = await open_batch(stack, config, loaded.manifest, lost=lost)
    loaded, retakes = await _with_wishes(batch.ledger, loaded, request)
    plan, recalled, history_error = await plan_run(api, batch, loaded.manifest, config, on_rewritten)
    plan, chosen, left_out = _select(plan, request, may_submit=history_error is None)
    records = plan.begun().records
    loaded = await _with_image_doubts(loaded, records, chosen, settings)
    pricing = load_prices(records, loaded, catalogue, settings.assume_price)
    prices, preflight = await _price_and_check(api, pricing, records, config)
    model_notes, model_error = await _check_models(records, catalogue)
    notes = (
        *sandbox_warnings,
        *model_notes,
        *await _batch_notes(batch, records, recalled, key=config.key.secret, api_name=api.name),
        *(*warnings_of(preflight), limit_note, space_warning(paths.folder)),
    )
    cost = estimate_cost(records, prices, preflight.balance_usd, chosen, sandbox=request.sandbox)
    runs, noted = int(await batch.ledger.meta_get("runs") or 0), tuple(filter(None, notes))
    rows = (chosen, left_out, retakes)
    outlook = (prices, cost, runs, *rows, preflight.obstacle, history_error or model_error)
    return PreparedRun(config, api, batch, loaded, noted, plan, *outlook)


async def _batch_notes(
    batch: OpenedBatch, records: Sequence[Record], recalled: Sequence[str], *, key: str, api_name: str
) -> tuple[str, ...]:
    """Return what to say of what earlier runs have left of the batch."""
    origins = origin_notes(records, key_id(key, batch.ledger.identity), api_name)
    return await last_end_note(batch.ledger), *batch.claim.notes, *recalled, *origins


async def _with_wishes(
    ledger: Ledger, loaded: LoadedManifest, request: RunRequest
) -> tuple[LoadedManifest, Retakes | None]:
    """Return the manifest with its extra takes, and these when some of them are asked for now.

    Note in the ledger that receipts are asked for.
    """
    if request.receipts:
        await ledger.meta_set(RECEIPTS_META, "1")
    retakes = await plan_retakes(ledger, loaded.manifest.jobs, request.retake)
    loaded = replace(loaded, manifest=loaded.manifest.with_takes(retakes.extra))
    return loaded, retakes if request.retake else None


def _select(
    plan: BatchPlan, request: RunRequest, *, may_submit: bool
) -> tuple[BatchPlan, frozenset[str] | None, frozenset[str]]:
    """Return the plan without what is not selected, the keys that may be submitted, and failed rows left out.

    A row that this run will not submit is not requeued: the next run would submit it unasked.
    """
    chosen = submittable(plan, request.selection)
    if not may_submit:
        return plan.submitting_only(frozenset()), frozenset(), frozenset()
    if chosen is None:
        return plan, None, frozenset()
    selected = plan.submitting_only(chosen)
    kept = {before.key for before, _ in selected.requeues}
    failed = (before.key for before, _ in plan.requeues if before.state is State.FAILED)
    return selected, chosen, frozenset(failed) - kept


async def _load_checked_manifest(
    config: RunConfig, parsed: ParsedManifest, catalogue: Catalog
) -> LoadedManifest:
    """Check the manifest's other models by the catalogue, and its files."""
    model_infos = await fetch_other_models(parsed, catalogue)
    manifest = await to_thread.run_sync(parsed.checked, known_rules(model_infos))
    settings = resolve_settings(config.request, manifest.run)
    check = partial(check_pictures, manifest, settings, sandbox=config.request.sandbox)
    return LoadedManifest(manifest, model_infos).with_doubts(*await to_thread.run_sync(check))


async def _with_image_doubts(
    loaded: LoadedManifest, records: Sequence[Record], chosen: frozenset[str] | None, settings: Settings
) -> LoadedManifest:
    """Return the manifest with the doubts about the images of rows that may be submitted, if asked for.

    No other image is looked at: what is paid for is fetched, whatever has become of its image since.
    """
    if not settings.check_images:
        return loaded
    pending = (record for record in records if record.state is State.PENDING)
    positions = {record.position for record in pending if chosen is None or record.key in chosen}
    jobs = [job for job in loaded.manifest.jobs if job.index in positions]
    return loaded.with_doubts(await image_warnings(loaded.manifest, settings.allow_private_images, jobs))


async def _load_engine() -> None:
    await to_thread.run_sync(partial(import_module, "pipeline.runner.execute"))


async def _price_and_check(
    api: Api, pricing: Awaitable[PriceTable], records: Sequence[Record], config: RunConfig
) -> tuple[PriceTable, Preflight]:
    """Load prices and check the API at the same time, so that a good start is no slower.

    A batch with nothing left to do makes no request. Raises `UsageError` for an address that is not the API.
    """
    if config.request.sandbox or not any(record.state not in FINISHED_STATES for record in records):
        return await pricing, Preflight()
    results: list[Preflight] = []

    async def check() -> None:
        results.append(await check_api(config.base_url, config.key))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(check)
        tasks.start_soon(_load_engine)  # needed right after, while the network is waited for
        prices = await pricing
    # A create that the vendor's clock does not date cannot be proven absent from its log.
    for seen in results[0].dates:
        api.vendor_clock.observe(*seen)
    obstacle = results[0].obstacle
    if obstacle is not None and isinstance(error := as_error(obstacle), UsageError):
        raise error
    return prices, results[0]


async def _check_models(
    records: Sequence[Record], catalogue: Catalog
) -> tuple[tuple[str, ...], StopRun | None]:
    """Return notes on models that retire, and the stop when one that rows still need is withdrawn.

    Raises `UsageError` in place of the stop when nothing is in flight that a run could still fetch.
    """
    pending = {record.model for record in records if record.state is State.PENDING and record.position >= 0}
    retired = await check_retired(pending, catalogue)
    if not retired.withdrawn:
        return retired.notes, None
    if not any(record.state not in {*FINISHED_STATES, State.PENDING} for record in records):
        raise UsageError(f"{retired.obstacle}. Nothing was submitted")
    return retired.notes, StopRun(StopReason.MODEL, retired.obstacle)


def report_start(prepared: PreparedRun, observer: Observer) -> None:
    """Report what this start is about to do, and what is unusual about it: warnings, edits, doubts."""
    plan, loaded, cost = prepared.plan, prepared.loaded, prepared.cost_estimate

    def warn(message: str, topic: Topic = Topic.NOTE, key: str = "") -> None:
        observer.on_event(Event(topic, message, Level.WARNING, key))

    for message in (*prepared.notes, *map(str, loaded.manifest.warnings), *loaded.notes):
        warn(message)
    if cost.rows:
        warn(cost.to_text(), Topic.PLANNED)
    for old, new in plan.edited:
        kept = " (its video is kept)" if old.artifact else ""
        edited = f"line {new.line}: {new.id} was edited: it is a new job; the old one stays as it is{kept}"
        warn(edited, key=new.key)
    old_keys = {old.key for old, _ in plan.edited}
    removed = sum(record.key not in old_keys for record in plan.removed)
    if removed:
        warn(f"{removed} row(s) are no longer in the manifest but were paid for: they are kept and listed")
    in_doubt = sum(record.state is State.IN_DOUBT for record in plan.begun().records)
    if in_doubt:
        warn(f"{in_doubt} row(s) are in doubt: the vendor's log is asked about them", Topic.IN_DOUBT)
