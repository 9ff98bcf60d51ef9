"""`--engine ray`: what stands in its way, what workers are told, what is looked after before they start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from pipeline.cluster import ClusterConfig
from pipeline.errors import StopRun, UsageError
from pipeline.events import Event, Level, Topic
from pipeline.model import State
from pipeline.storage import is_object_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from pipeline.cli.request import RunOptions
    from pipeline.cli.setup import PreparedRun
    from pipeline.cluster.driver import ClusterDriver
    from pipeline.download.downloader import Downloader
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.model import Record

ARTIFACT_CHECKERS = 4


def check_cluster_options(options: RunOptions) -> None:
    """Raise `UsageError` for what cannot work with workers on other machines."""
    cluster_options = options.cluster
    if cluster_options is None:
        return
    from pipeline.cluster import ray_backend  # noqa: F401 - says so when Ray is not installed

    if cluster_options.address is None:
        return
    if options.sandbox:
        raise UsageError("--sandbox listens on this machine only: leave --ray-address out")
    if not (options.ledger_choice.ledger or "").startswith("postgres"):
        raise UsageError(
            "workers on other machines need a ledger that they can reach: --ledger postgresql://..."
        )


def make_cluster(
    records: Sequence[Record],
    prepared: PreparedRun,
    epoch: tuple[int, frozenset[str]],
    shared_durations: Mapping[str, Any],
    observer: Observer,
) -> ClusterDriver:
    """Return the cluster that will carry the batch out; nothing of it is started yet.

    `epoch` is what the ledger answered when it began, `memory` what a learner of durations dumped.
    """
    from pipeline.cluster.driver import ClusterDriver

    config, prices = prepared.config, prepared.prices
    cluster_options, paths = config.options.cluster, config.paths
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
        api_key=config.key,
        settings=config.settings,
        workers=cluster_options.workers,
        lease_s=cluster_options.lease_s,
        prices=prices.by_key,
        assumed_price=prices.assumed,
        cached_durations=shared_durations,
    )
    return ClusterDriver(records, job, prepared.ledger, epoch, observer, address=cluster_options.address)


async def check_artifacts(
    records: Sequence[Record], ledger: Ledger, downloader: Downloader, observer: Observer
) -> tuple[list[Record], StopRun | None]:
    """Check that what was saved is still there; return the records, with what must be fetched again.

    With them comes what kept some from being checked, if anything did: a place or a ledger that is away.
    """
    checked = {record.key: record for record in records}
    done = iter([record for record in records if record.state is State.DONE])
    errors: list[StopRun] = []

    async def check_shared(shared: Iterator[Record]) -> None:
        for record in shared:
            try:
                if record.artifact is not None and await downloader.intact(record.artifact):
                    continue
                message = f"{record.id}: its video is missing or altered: fetching it again"
                observer.on_event(Event(Topic.NOTE, message, Level.WARNING, record.key))
                requeued = record.evolve(State.READY, artifact=None, downloaded_at=None)
                checked[record.key] = await ledger.commit(record, requeued)
            except StopRun as error:
                errors.append(error)
                return

    async with anyio.create_task_group() as tasks:
        for _ in range(ARTIFACT_CHECKERS):
            tasks.start_soon(check_shared, done)
    return list(checked.values()), errors[0] if errors else None
