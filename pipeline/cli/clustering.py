"""`--engine ray`: what stands in its way, what workers are told, what is looked after before they start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from pipeline.cluster import ClusterJob
from pipeline.errors import StopRun, UsageError
from pipeline.events import Event, Level, Topic
from pipeline.model import State
from pipeline.storage import is_object_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from pipeline.cli.request import Request
    from pipeline.cli.setup import Prepared
    from pipeline.cluster.driver import Cluster
    from pipeline.download.downloader import Downloader
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.model import Record

CHECKERS = 4


def check_cluster(request: Request) -> None:
    """Raise `UsageError` for what cannot work with workers on other machines."""
    chosen = request.cluster
    if chosen is None:
        return
    from pipeline.cluster import ray_backend  # noqa: F401 - says so when Ray is not installed

    if chosen.address is None:
        return
    if request.sandbox:
        raise UsageError("--sandbox listens on this machine only: leave --ray-address out")
    if not (request.where.ledger or "").startswith("postgres"):
        raise UsageError(
            "workers on other machines need a ledger that they can reach: --ledger postgresql://..."
        )


def make_cluster(
    records: Sequence[Record],
    prepared: Prepared,
    epoch: tuple[int, frozenset[str]],
    memory: Mapping[str, Any],
    observer: Observer,
) -> Cluster:
    """Return the cluster that will carry the batch out; nothing of it is started yet.

    `epoch` is what the ledger answered when it began, `memory` what a learner of durations dumped.
    """
    from pipeline.cluster.driver import Cluster

    batch, prices = prepared.batch, prepared.prices
    chosen, place = batch.request.cluster, batch.place
    if chosen is None:
        raise ValueError("no cluster was asked for")
    where = str(place.ledger)
    if "://" not in where.removeprefix("sqlite:///"):
        where = str(Path(where.removeprefix("sqlite:///")).absolute())
    output = place.output if is_object_url(place.output) else str(Path(place.output).absolute())
    job = ClusterJob(
        ledger=where,
        batch=place.batch,
        output=output,
        base_url=batch.base_url,
        key=batch.key,
        settings=batch.settings,
        workers=chosen.workers,
        lease_s=chosen.lease_s,
        prices=prices.by_key,
        assumed_price=prices.assumed,
        memory=memory,
    )
    return Cluster(records, job, prepared.ledger, epoch, observer, address=chosen.address)


async def check_saved(
    records: Sequence[Record], ledger: Ledger, downloader: Downloader, observer: Observer
) -> tuple[list[Record], StopRun | None]:
    """Check that what was saved is still there; return the records, with what must be fetched again.

    With them comes what kept some from being checked, if anything did: a place or a ledger that is away.
    """
    checked = {record.key: record for record in records}
    done = iter([record for record in records if record.state is State.DONE])
    troubles: list[StopRun] = []

    async def some(shared: Iterator[Record]) -> None:
        for record in shared:
            try:
                if record.artifact is not None and await downloader.intact(record.artifact):
                    continue
                words = f"{record.id}: its video is missing or altered: fetching it again"
                observer.said(Event(Topic.NOTE, words, Level.WARNING, record.key))
                again = record.evolve(State.READY, artifact=None, downloaded_at=None)
                checked[record.key] = await ledger.commit(record, again)
            except StopRun as trouble:
                troubles.append(trouble)
                return

    async with anyio.create_task_group() as tasks:
        for _ in range(CHECKERS):
            tasks.start_soon(some, done)
    return list(checked.values()), troubles[0] if troubles else None
