"""The tools themselves: validate, estimate, run, status, results, pick, stop. Nothing is ever deleted."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from pipeline.batch.ledger_access import made_by_sandbox, open_read_only_ledger
from pipeline.batch.paths import LedgerChoice, existing_batch_paths
from pipeline.cli.assistant.budget import SharedBudget
from pipeline.cli.assistant.commands import BackgroundRuns, CommandFailed, call, run_file
from pipeline.errors import UsageError, VeobatchError
from pipeline.extras import missing_extra
from pipeline.runner.results import results_of

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
except ModuleNotFoundError as error:
    raise missing_extra("veobatch mcp", "mcp") from error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from pipeline.batch.paths import BatchPaths

INSTRUCTIONS: Final = """Makes videos of a manifest's rows (image_url, prompt), a YAML file in this folder.
Validate it, estimate it, then run it: that spends money, within the budget that the user has given.
A run goes on in the background, also without you: ask for its status. Running again continues; nothing is
paid for twice. Failed rows are tried again only with retry_failed."""


class Assistant:
    """What the tools do. `max_cost` is what all batches run by assistants here may cost together, in USD."""

    def __init__(self, root: Path, max_cost: float, *, sandbox: bool) -> None:
        self._root, self._sandbox = root.resolve(), sandbox
        self.runs = BackgroundRuns(self._root, sandbox=sandbox)
        file = run_file(self._root, ".sandbox-budget.json" if sandbox else ".budget.json")
        self._budget = SharedBudget(file, max_cost, self.runs, self._paths)

    async def validate(self, manifest: str) -> dict[str, Any]:
        """Find every problem of a manifest, with its line and column. Spends nothing."""
        return await call(self._root, "validate", str(self._path(manifest)), "--json")

    async def estimate(self, manifest: str) -> dict[str, Any]:
        """Price a manifest: USD in all and by model, the balance, and what is left of the budget."""
        path = self._path(manifest)
        sandbox = ["--sandbox"] if self._sandbox else []
        answer = await call(self._root, "estimate", str(path), "--json", *sandbox)
        return answer | {"budget_usd": await self._budget.left(self.runs.folder(path))}

    async def run(
        self, manifest: str, max_cost: float | None = None, retry_failed: bool = False
    ) -> dict[str, Any]:
        """Start or continue a batch in the background. Spends money: at most max_cost USD (what the whole
        manifest may cost over all its runs), and never more than what is left of the server's budget."""
        path = self._path(manifest)
        await call(self._root, "validate", str(path))
        async with self._budget.grant(self.runs.folder(path), max_cost) as allowed:
            arguments = ["--max-cost", f"{allowed:.6f}", *(["--retry-failed"] if retry_failed else [])]
            summary = await self.runs.start(path, arguments)
        return {"running": summary is None, "max_cost": allowed, "summary": summary}

    async def status(self, manifest: str) -> dict[str, Any]:
        """Count a batch's rows by status; says whether a run is going on, and how the last one ended."""
        folder = self.runs.folder(self._path(manifest))
        running = self.runs.is_running(folder)
        try:
            counts = await call(self._root, "status", str(folder), "--json")
        except CommandFailed:
            if not running:
                raise
            counts = {"message": "a run is starting: ask again"}
        if not running and self.runs.last_error(folder):
            counts["error"] = self.runs.last_error(folder)
        summary = None if running else self.runs.last_summary(folder)
        return counts | {"running": running, "summary": summary}

    async def results(
        self, manifest: str, status: str = "", offset: int = 0, limit: int = 50
    ) -> dict[str, Any]:
        """List a batch's rows with their videos' paths, costs and errors; `status` chooses, e.g. failed."""
        paths = self._paths(self.runs.folder(self._path(manifest)))
        async with await open_read_only_ledger(paths) as ledger:
            rows = results_of(await ledger.load(), paths, sandbox=await made_by_sandbox(ledger))
        chosen = [row for row in rows if not status or row.status == status]
        shown = [asdict(row) for row in chosen[max(0, offset) : max(0, offset) + max(1, min(limit, 500))]]
        return {"total": len(chosen), "offset": offset, "rows": shown}

    async def pick(
        self, manifest: str, ids: list[str], reject: bool = False, note: str = ""
    ) -> dict[str, Any]:
        """Pick (or reject) takes by their ids. A row has one pick."""
        folder = self.runs.folder(self._path(manifest))
        options = [*(["--reject"] if reject else []), *([f"--note={note}"] if note else [])]
        return await call(self._root, "pick", str(folder), *options, "--", *ids)

    async def stop(self, manifest: str) -> dict[str, bool]:
        """Let a run submit no more; what is paid for is finished and saved. Running again continues."""
        return {"stopping": self.runs.stop(self.runs.folder(self._path(manifest)))}

    def _path(self, manifest: str) -> Path:
        """Return a manifest's path. Raises `UsageError` for one outside of the server's folder."""
        path = (self._root / manifest).resolve()
        if not path.is_relative_to(self._root):
            raise UsageError(f"{manifest} is outside of {self._root}, where this server was started")
        return path

    def _paths(self, folder: Path) -> BatchPaths:
        """Return the batch in a folder; its ledger is where the runs look for it, from the server's folder.

        Raises `UsageError` when there is none.
        """
        if not folder.is_dir():
            raise UsageError(f"no batch at {folder}: has it been run?")
        ledger = os.environ.get("VEOBATCH_LEDGER", "").removeprefix("sqlite:///")
        if ledger and "://" not in ledger:
            ledger = str(self._root / ledger)
        return existing_batch_paths(str(folder), None, LedgerChoice(ledger or None))


def make_server(assistant: Assistant) -> MCPServer:
    """Return the server with the assistant's tools."""
    from pipeline import __version__

    server = MCPServer("veobatch", instructions=INSTRUCTIONS, version=__version__)
    tools = (assistant.validate, assistant.estimate, assistant.run, assistant.status)
    for tool in (*tools, assistant.results, assistant.pick, assistant.stop):
        server.add_tool(_worded(tool), name=tool.__name__, description=tool.__doc__)
    return server


def _worded(tool: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return the tool with its errors as the command words them."""
    from functools import wraps

    @wraps(tool)
    async def worded(**arguments: Any) -> Any:
        try:
            return await tool(**arguments)
        except (CommandFailed, VeobatchError) as error:
            raise ToolError(str(error)) from error

    return worded
