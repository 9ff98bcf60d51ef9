"""A whole batch in one call, for scripts and notebooks."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import anyio
from anyio.from_thread import start_blocking_portal

from pipeline.model import State
from pipeline.runner.batch_handle import Batch

if TYPE_CHECKING:
    from tqdm import tqdm

    from pipeline.events import Event
    from pipeline.model import Record
    from pipeline.runner.batch_options import BatchOptions, ManifestLike
    from pipeline.runner.results import Results

_ENDED = frozenset({State.DONE, State.FAILED})


def run(
    manifest: ManifestLike, *, title: str = "batch", progress: bool = True, **options: Unpack[BatchOptions]
) -> Results:
    """Run a batch to its end and return its rows; run again to continue. Spends money, at most `max_cost`.

    The arguments are those of `Batch`. `progress` shows a bar, as fits a terminal or a notebook. Works where
    an event loop is running already (a notebook), in a thread then. Raises `VeobatchError` for what keeps a
    run from starting; why one ended early is in the results' `summary`. Ctrl-C ends it at once, resumable.
    """
    batch = Batch(manifest, title=title, **options)
    work = partial(_run, batch, progress=progress)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return anyio.run(work)
    with start_blocking_portal() as portal:
        return portal.call(work)


async def _run(batch: Batch, *, progress: bool) -> Results:
    async with batch:
        prepared = await batch.prepare()
        bar = _Bar(prepared.plan.begun().records) if progress else None
        try:
            async for _ in batch.run(*([bar] if bar else [])):
                pass
        finally:
            if bar is not None:
                bar.close()
        return await batch.results()


class _Bar:
    """An observer that shows how many rows have ended, and what they have cost."""

    def __init__(self, records: tuple[Record, ...]) -> None:
        from tqdm.auto import tqdm as make_bar

        rows = [record for record in records if record.position >= 0]
        ended = sum(record.state in _ENDED for record in rows)
        self._bar: tqdm[Any] = make_bar(total=len(rows), initial=ended, unit="row", desc="veobatch")
        self._failed = sum(record.state is State.FAILED for record in rows)
        self._usd = sum(record.usd_spent or 0.0 for record in rows)

    def on_transition(self, before: Record, after: Record) -> None:
        self._usd += (after.usd_spent or 0.0) - (before.usd_spent or 0.0)
        self._failed += (after.state is State.FAILED) - (before.state is State.FAILED)
        step = (after.state in _ENDED) - (before.state in _ENDED)
        if step:
            failed = f"{self._failed} failed, " if self._failed else ""
            self._bar.set_postfix_str(f"{failed}${self._usd:,.2f}", refresh=False)
            self._bar.update(step)

    def on_event(self, event: Event) -> None:
        """Events have no place in a bar."""

    def close(self) -> None:
        self._bar.close()
