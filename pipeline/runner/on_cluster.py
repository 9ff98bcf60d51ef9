"""A prepared run handed to workers that Ray places: what is saved is checked first, then they start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.batch.pictures import picture_delivery
from pipeline.cluster import ClusterConfig
from pipeline.cluster.driver import ClusterDriver
from pipeline.download.verify import check_saved, describe_findings, transitions_for
from pipeline.errors import Conflict, StopRun
from pipeline.events import Event, Level, Topic
from pipeline.model import State
from pipeline.run_state import unselected
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
    records, error = await check_artifacts(
        prepared.plan.records, prepared.batch.ledger, config.store, config.settings, observer
    )
    cluster = _make_cluster(records, prepared, epoch, shared_durations, observer)
    error = error or prepared.submit_error
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
        unselected=unselected(records, prepared.submittable),
    )
    return ClusterDriver(
        records, job, prepared.batch.ledger, epoch, observer, address=cluster_options.address
    )


async def check_artifacts(
    records: Sequence[Record], ledger: Ledger, store: OutputStore, settings: Settings, observer: Observer
) -> tuple[list[Record], StopRun | None]:
    """Check what was saved, before workers start; return the records, with what must be fetched again.

    With them comes the error that kept them from being checked, if any: an output or a ledger that is away.
    """
    checked = {record.key: record for record in records}
    done = [record for record in records if record.state is State.DONE]
    try:
        found = await check_saved(store, done, read_all=settings.verify)
        for message in describe_findings(found, fetch_missing=settings.fetch_missing):
            observer.on_event(Event(Topic.NOTE, message, Level.WARNING))
        for outcome in await ledger.commit_many(transitions_for(found, fetch_missing=settings.fetch_missing)):
            if isinstance(outcome, Conflict):
                raise outcome
            checked[outcome.key] = outcome
    except StopRun as error:
        return list(checked.values()), error
    return list(checked.values()), None
