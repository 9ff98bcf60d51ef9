"""Keeps results.csv current while a run goes on, and writes CSV and report at its end.

Both are projections of the records: never a second source of truth, rewritten whole and atomically.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from pipeline import clocks
from pipeline.errors import LedgerError, StoreError, UsageError
from pipeline.model import State
from pipeline.results import CSV_NAME, PICKS_PAGE_NAME, REPORT_NAME, csv_rows, is_our_page
from pipeline.results.block_cache import BLOCKS_NAME, BlockCache
from pipeline.results.incremental_csv import IncrementalCsv
from pipeline.results.picks import PicksFolder, chosen_clips, client_record, pick_paths, with_picks
from pipeline.results.row_blocks import RowBlocks
from pipeline.storage import LocalStore
from pipeline.storage.base import candidate_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.events import Event
    from pipeline.ledger import Ledger
    from pipeline.ledger.totals import Totals
    from pipeline.model import Pick, Record
    from pipeline.results.picks import PlacedFile
    from pipeline.storage import OutputStore

MIN_REWRITE_INTERVAL_S: Final = 1.0
REWRITE_COST_FACTOR: Final = 20.0
"""A rewrite may take a twentieth of the time, so that a huge batch does not spend its night on its CSV.

The first one, which makes every row, says nothing of those that follow, which make what has changed.
"""

FILE_WAIT_WEIGHT: Final = 0.1
"""What waiting for a folder's disk counts beside computing: a thread waits, and nobody for it."""

LARGE_BATCH_ROWS: Final = 2000
"""From here on the page is prepared while the run goes on."""


class ResultsWriter:
    """An observer that notices changes, and the task that writes them."""

    def __init__(
        self,
        store: OutputStore,
        *,
        title: str,
        manifest: str,
        sandbox: bool = False,
        ledger: Ledger | None = None,
        batch: str = "",
    ) -> None:
        """`ledger` is asked for the picks, which reviewers change while a run holds its records.

        `batch` is the ledger's identity.
        """
        self._store = store
        self._ledger = ledger
        self._batch = batch or (ledger.identity if ledger is not None else "")
        self._sandbox = sandbox
        self._title = title
        self._manifest = manifest
        self.pick_notes: tuple[str, ...] = ()
        """What `finish` could not do in the folder of picks."""
        self._dirty = True
        self._first_delay_s = 0.0
        self._first_answer = anyio.Event()
        self._cost_s = 0.0
        self._cache = BlockCache()
        self._table = csv_rows.CsvTable(sandbox=sandbox, cache=self._cache)
        self._file: IncrementalCsv | None = None
        self._page_blocks: RowBlocks[str] | None = None

    def on_transition(self, before: Record, after: Record) -> None:
        self._dirty = True
        if before.state is State.SUBMITTING:
            self._first_answer.set()

    def on_event(self, event: Event) -> None:
        """Events do not change the CSV."""

    async def rewrite_on_change(self, records: Callable[[], Sequence[Record]]) -> None:
        """Rewrite the CSV after changes, until cancelled. A full disk is noticed where videos are saved."""
        await anyio.sleep(0.0)
        if self._first_delay_s:  # while the vendor renders, there is time for it
            with anyio.move_on_after(self._first_delay_s):
                await self._first_answer.wait()
        is_first, cost_s = True, 0.0
        while True:
            if self._dirty:
                self._dirty = False
                await self._try_write_csv(records())
                is_first, cost_s = False, 0.0 if is_first else self._cost_s
                # Creates are on their way by now, and the end of the run waits for the page.
                await self._prepare_page(records())
            await anyio.sleep(max(MIN_REWRITE_INTERVAL_S, REWRITE_COST_FACTOR * cost_s))
            cost_s = 0.0

    def _load_page(self) -> RowBlocks[str]:
        from pipeline.results import report

        report.load_templates()
        return RowBlocks(self._cache.kept("page", report.page_data.pack_rows))

    async def _prepare_page(self, records: Sequence[Record]) -> None:
        """Load what the page is made of and, for a large batch, make the blocks whose rows have all ended."""
        if self._page_blocks is None:
            self._page_blocks = await anyio.to_thread.run_sync(self._load_page)
        if len(records) > LARGE_BATCH_ROWS:
            visible = await anyio.to_thread.run_sync(csv_rows.visible_records, records)
            ended = self._page_blocks.each_ended(visible)
            while await anyio.to_thread.run_sync(next, ended, None) is not None:
                pass  # a thread for each block: the run may end in between

    async def begin(self, records: Sequence[Record]) -> None:
        """Show that the output takes a CSV, before anything is bought; raises `StoreError` when it does not.

        Making that of a large batch takes seconds: the last run's, or one without rows, is put there, and
        replaced while creates are on their way.
        """
        if len(records) <= LARGE_BATCH_ROWS or not isinstance(self._store, LocalStore):
            await self.write_csv(records)
            return
        self._first_delay_s = MIN_REWRITE_INTERVAL_S
        if not await self._store.write_again(CSV_NAME):
            empty = csv_rows.csv_bytes([], sandbox=self._sandbox)
            await self._store.write_bytes(CSV_NAME, empty, durable=False)
        self._cache.open(self._store.resolve(BLOCKS_NAME), sandbox=self._sandbox)
        self._file = IncrementalCsv(self._store.resolve(CSV_NAME), sandbox=self._sandbox, cache=self._cache)

    async def write_csv(self, records: Sequence[Record]) -> None:
        """Write the CSV. Raises `StoreError`: an output that does not take it takes no video either."""
        picks, began = await self._picks(), clocks.monotonic()
        # No fsync: after a power cut the table is made again from the ledger.
        if self._file is not None and isinstance(self._store, LocalStore):
            cpu_s = await self._store.run_in_thread(partial(_write_file, self._file, records, picks))
            self._cost_s = max(cpu_s, FILE_WAIT_WEIGHT * (clocks.monotonic() - began))
            return
        data = await anyio.to_thread.run_sync(lambda: self._table.to_bytes(_picked(records, picks)))
        with anyio.CancelScope(shield=True):
            await self._store.write_bytes(CSV_NAME, data, durable=False)
        self._cost_s = clocks.monotonic() - began

    async def _picks(self) -> Mapping[str, Pick] | None:
        """Return what reviewers say now, None when only the records tell."""
        if self._ledger is None:
            return None
        with contextlib.suppress(LedgerError, StoreError):  # the run itself reports a ledger that is gone
            return await self._ledger.picks()
        return None

    async def _try_write_csv(self, records: Sequence[Record]) -> bool:
        try:
            await self.write_csv(records)
        except StoreError:
            self._dirty = True
            return False
        return True

    async def finish(
        self, records: Sequence[Record], *, next_command: str = "", money: Totals | None = None
    ) -> bool:
        """Write CSV and report as they are now; return whether both are there. `money`: see `summarize`."""
        records = _picked(records, await self._picks())
        if not await self._try_write_csv(records):
            return False

        def render_page() -> bytes:
            from pipeline.results import report

            self._page_blocks = self._page_blocks or self._load_page()
            return report.render(
                records,
                title=self._title,
                manifest=self._manifest,
                generated_at=clocks.wall(),
                next_command=next_command,
                sandbox=self._sandbox,
                money=money,
                batch=self._batch,
                packed=self._page_blocks,
            ).encode()

        picks_ready = await self._update_picks(records)
        try:
            await self._store.write_bytes(
                REPORT_NAME, await anyio.to_thread.run_sync(render_page), durable=False
            )
        except StoreError:
            return False
        await anyio.to_thread.run_sync(self._cache.save)
        return picks_ready

    async def _update_picks(self, records: Sequence[Record]) -> bool:
        """Bring the folder of picks up to date; return whether it is. The page does not wait for it."""
        try:
            if self._ledger is not None:
                with contextlib.suppress(LedgerError):  # the run itself reports a ledger that is gone
                    self.pick_notes = await PicksFolder(self._ledger, self._store).place(records)
        except StoreError:
            return False
        return True

    async def write_picks_page(
        self, records: Sequence[Record], placed: Mapping[str, PlacedFile] | None = None
    ) -> str:
        """Write the page of the chosen clips, to show a client; `placed` says where in the folder they are.

        Returns its name: a file of the user's own under the usual one stays.
        Raises `StoreError`, and `UsageError` when nothing was picked.
        """
        from pipeline.results import report

        chosen = chosen_clips(records)
        if not chosen:
            raise UsageError("nothing is picked: `veobatch pick` or the report's page chooses among takes")
        paths = pick_paths(records, chosen)
        paths |= {row_id: file.path for row_id, file in (placed or {}).items() if row_id in paths}
        shown = [client_record(record, paths[row_id]) for row_id, record in chosen.items()]
        page = report.render(
            shown,
            title=self._title,
            manifest="",
            generated_at=clocks.wall(),
            sandbox=self._sandbox,
            client=True,
        )
        for name in candidate_names(PICKS_PAGE_NAME):
            existing = await self._store.read_bytes(name)
            if existing is None or is_our_page(existing):
                await self._store.write_bytes(name, page.encode(), durable=False)
                return name
        raise AssertionError("there is always another name")


def _picked(records: Sequence[Record], picks: Mapping[str, Pick] | None) -> Sequence[Record]:
    return records if picks is None else with_picks(records, picks)


def _write_file(file: IncrementalCsv, records: Sequence[Record], picks: Mapping[str, Pick] | None) -> float:
    """Write the file; return the CPU that it took, in seconds."""
    began = clocks.thread_cpu()
    file.write(_picked(records, picks))
    return clocks.thread_cpu() - began
