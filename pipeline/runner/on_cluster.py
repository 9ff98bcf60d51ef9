"""A prepared run handed to workers that Ray places: what is saved is checked first, then they start."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from pipeline.batch.pictures import picture_delivery
from pipeline.circuit_breaker import CircuitBreaker
from pipeline.cluster import ClusterConfig
from pipeline.cluster.driver import ClusterDriver
from pipeline.download.verify import check_saved, describe_findings, transitions_for, unreadable_rows
from pipeline.errors import Conflict, StopRun
from pipeline.events import Event, Level, Topic
from pipeline.model import State
from pipeline.run_context import common_crash, crash_event, crash_reason
from pipeline.storage import is_object_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.runner.prepare import PreparedRun
    from pipeline.settings import Settings
    from pipeline.storage import OutputStore


async def start_cluster(
    prepared: PreparedRun,
    epoch: tuple[int, frozenset[str]],
    shared_durations: Mapping[str, Any],
    observer: Observer,
) -> ClusterDriver:
    """Return the cluster that will carry the batch out; none of its workers is started yet.

    `epoch` is what the ledger answered when it began, `shared_durations` what a learner dumped.
    """
    config = prepared.config
    ledger, settings = prepared.batch.ledger, config.settings
    check = ArtifactCheck(prepared.plan.records, ledger, config.store, settings, observer)
    await check.run()
    if check.error is not None:
        prepared.submit_nothing(check.error)
    requeued = {after.key: after for _, after in prepared.plan.requeues}
    records = [requeued.get(key, record) for key, record in check.records.items()]
    cluster = _make_cluster(records, prepared, epoch, shared_durations, observer)
    cluster.view.unchecked.update(check.unchecked)
    error = check.error or prepared.submit_error
    if error is not None:
        cluster.stop_submitting(error)
    return cluster


def _make_cluster(
    records: Sequence[Record],
    prepared: PreparedRun,
    epoch: tuple[int, frozenset[str]],
    shared_durations: Mapping[str, Any],
    observer: Observer,
) -> ClusterDriver:
    config, prices = prepared.config, prepared.prices
    cluster_options, paths = config.request.cluster, config.paths
    if cluster_options is None:
        raise ValueError("no cluster was asked for")
    ledger_url = str(paths.ledger)
    if "://" not in ledger_url.removeprefix("sqlite:///"):
        ledger_url = str(Path(ledger_url.removeprefix("sqlite:///")).absolute())
    output = paths.output if is_object_url(paths.output) else str(Path(paths.output).absolute())
    job = ClusterConfig(
        ledger=ledger_url,
        batch=paths.batch,
        output=output,
        base_url=config.base_url,
        api_name=prepared.api.name,
        api_key=config.key,
        settings=config.settings,
        workers=cluster_options.workers,
        lease_s=cluster_options.lease_s,
        prices=prices.by_key,
        assumed_price=prices.assumed,
        cached_durations=shared_durations,
        pictures=picture_delivery(prepared.loaded.manifest, config.settings, sandbox=config.request.sandbox),
        submittable=prepared.submittable,
    )
    ledger, address = prepared.batch.ledger, cluster_options.address
    # Only once Ray is joined: a run without workers leaves what was asked for this once to the next one.
    begin = partial(prepared.requests().commit, ledger)
    return ClusterDriver(records, job, ledger, epoch, observer, address=address, on_joined=begin)


class ArtifactCheck:
    """Checks what was saved, before workers start; what an odd row causes is that row's.

    `records` are the rows after it, by key; `unchecked` has why some could not be checked, and `error` what
    kept all others from it: an output or a ledger that is away.
    """

    def __init__(
        self,
        records: Sequence[Record],
        ledger: Ledger,
        store: OutputStore,
        settings: Settings,
        observer: Observer,
    ) -> None:
        self.records = {record.key: record for record in records}
        self.unchecked: dict[str, str] = {}
        self.error: StopRun | None = None
        self._ledger, self._store, self._settings, self._observer = ledger, store, settings, observer
        self._breaker = CircuitBreaker()

    async def run(self) -> None:
        """Check all rows that are done at once, and each alone if that raises something unexpected."""
        done = [record for record in self.records.values() if record.state is State.DONE]
        try:
            try:
                await self._check(done)
            except StopRun:
                raise
            except Exception:  # each row alone raises it again, where it is reported
                for record in done:
                    await self._check_alone(self.records[record.key])
        except StopRun as error:
            self.error = error

    async def _check(self, rows: Sequence[Record]) -> None:
        fetch_missing = self._settings.fetch_missing
        found = await check_saved(self._store, rows, read_all=self._settings.verify)
        for message in describe_findings(found, fetch_missing=fetch_missing):
            self._observer.on_event(Event(Topic.NOTE, message, Level.WARNING))
        self.unchecked |= unreadable_rows(found)
        # The ledger writes them also for a caller that is cancelled: then the table would be behind it.
        with anyio.CancelScope(shield=True):
            outcomes = await self._ledger.commit_many(transitions_for(found, fetch_missing=fetch_missing))
        for outcome in outcomes:
            if isinstance(outcome, Conflict):
                self.unchecked[outcome.key] = "another process has it"
            else:
                self.records[outcome.key] = outcome

    async def _check_alone(self, row: Record) -> None:
        try:
            await self._check([row])
        except StopRun:
            raise
        except Exception as error:  # whatever a row's data causes, the other rows are checked
            self._observer.on_event(crash_event(row, error))
            self.unchecked[row.key] = crash_reason(error)
            if self._breaker.on_crash(row.key):
                raise common_crash(error) from error
        else:
            self._breaker.on_success()
