"""What all batches that assistants run in one folder may cost together, however often the server is started.

Which batches those are is kept in a file of the user's, since the server forgets; what they cost is counted
by their ledgers. A batch whose ledger is gone counts all that it was granted.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyio import to_thread
from filelock import FileLock

from pipeline import clocks
from pipeline.batch.ledger_access import open_read_only_ledger
from pipeline.errors import UsageError
from pipeline.storage.files import replace_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pipeline.batch.paths import BatchPaths
    from pipeline.cli.assistant.commands import BackgroundRuns

START_GRACE_S: Final = 90.0
"""How long a run that was started may take until it is seen: its server may have been killed meanwhile."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a batch's last run was given, and what earlier ones were whose ledger is gone; in USD."""

    granted_usd: float = 0.0
    granted_at: float = 0.0
    lost_usd: float = 0.0


class SharedBudget:
    """A limit in USD over all batches of a folder, shared by all servers of it."""

    def __init__(
        self,
        file: Path,
        max_cost: float,
        runs: BackgroundRuns,
        paths_of: Callable[[Path], BatchPaths],
    ) -> None:
        """`file` remembers the grants; `paths_of` gives the batch in a folder, or raises `UsageError`."""
        self._file, self._max_cost = file, max_cost
        self._runs, self._paths_of = runs, paths_of

    async def left(self, folder: Path) -> float:
        """Return what the batch in `folder` may cost over all its runs: the limit less what others take."""
        others = [await self._taken(path, grant) for path, grant in self._read().items() if path != folder]
        return max(0.0, self._max_cost - sum(others))

    @asynccontextmanager
    async def grant(self, folder: Path, at_most: float | None) -> AsyncIterator[float]:
        """Give what a run of the batch in `folder` may cost; a run that did not start gives it back.

        No two servers grant at once. The grant is on the disk before the body runs.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._file.with_suffix(".lock"), thread_local=False)
        await to_thread.run_sync(lock.acquire)
        try:
            grants = self._read()
            before = grants.get(folder, Grant())
            lost = before.lost_usd + (before.granted_usd if await self._committed(folder) is None else 0.0)
            left = max(0.0, await self.left(folder) - lost)
            allowed = left if at_most is None else min(left, max(0.0, at_most))
            self._write(grants | {folder: Grant(allowed, clocks.wall(), lost)})
            try:
                yield allowed
            except Exception:  # not a call that was cancelled: its run goes on
                self._write(grants | {folder: before})
                raise
        finally:
            lock.release()

    async def _taken(self, folder: Path, grant: Grant) -> float:
        """Return what a batch counts: what it was granted while it runs, what its ledger knows after that."""
        committed = await self._committed(folder)
        if committed is None or self._may_run(folder, grant):
            return grant.lost_usd + max(committed or 0.0, grant.granted_usd)
        return grant.lost_usd + committed

    def _may_run(self, folder: Path, grant: Grant) -> bool:
        starting = clocks.wall() - grant.granted_at < START_GRACE_S and not self._runs.has_ended(folder)
        return starting or self._runs.is_running(folder)

    async def _committed(self, folder: Path) -> float | None:
        """Return what a batch's ledger counts in USD, None when it is gone."""
        try:
            paths = self._paths_of(folder)
        except UsageError:
            failed_before = self._runs.last_error(folder) and self._runs.last_summary(folder) is None
            return 0.0 if failed_before else None
        async with await open_read_only_ledger(paths) as ledger:
            return (await ledger.totals()).committed_usd

    def _read(self) -> dict[Path, Grant]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return {Path(path): Grant(**grant) for path, grant in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{self._file} cannot be read, and with it what was spent of the budget: repair or remove it"
            ) from error

    def _write(self, grants: dict[Path, Grant]) -> None:
        data = {str(path): asdict(grant) for path, grant in grants.items()}
        replace_file(self._file, json.dumps(data).encode(), durable=True)
