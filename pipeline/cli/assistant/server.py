"""The tools themselves: validate, estimate, run, status, results, pick, stop. Nothing is ever deleted."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from pipeline.batch.ledger_access import made_by_sandbox, open_read_only_ledger
from pipeline.batch.paths import existing_batch_paths
from pipeline.cli.assistant.commands import BackgroundRuns, CommandFailed, call
from pipeline.errors import UsageError, VeobatchError
from pipeline.extras import missing_extra
from pipeline.ledger.totals import Book
from pipeline.runner.results import results_of

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
except ModuleNotFoundError as error:
    raise missing_extra("veobatch mcp", "mcp") from error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

INSTRUCTIONS: Final = """Makes videos of a manifest's rows (image_url, prompt), a YAML file in this folder.
Validate it, estimate it, then run it: that spends money, within the budget that the user has given.
A run goes on in the background, also without you: ask for its status. Running again continues; nothing is
paid for twice. Failed rows are tried again only with retry_failed."""


class Assistant:
    """What the tools do. `max_cost` is what all batches that are run here may cost together, in USD."""

    def __init__(self, root: Path, max_cost: float, *, sandbox: bool) -> None:
        self._root, self._max_cost = root.resolve(), max_cost
        self._runs = BackgroundRuns(self._root, sandbox=sandbox)
        self._granted: dict[Path, float] = {}

    async def validate(self, manifest: str) -> dict[str, Any]:
        """Find every problem of a manifest, with its line and column. Spends nothing."""
        return await call(self._root, "validate", str(self._path(manifest)), "--json")

    async def estimate(self, manifest: str) -> dict[str, Any]:
        """Price a manifest: USD in all and by model, the balance, and what is left of the budget."""
        path = self._path(manifest)
        return await call(self._root, "estimate", str(path), "--json") | {
            "budget_usd": await self._left(path)
        }

    async def run(
        self, manifest: str, max_cost: float | None = None, retry_failed: bool = False
    ) -> dict[str, Any]:
        """Start or continue a batch in the background. Spends money: at most max_cost USD (what the whole
        manifest may cost over all its runs), and never more than what is left of the server's budget."""
        path = self._path(manifest)
        await call(self._root, "validate", str(path))
        left = await self._left(path)
        allowed = left if max_cost is None else min(left, max_cost)
        arguments = ["--max-cost", f"{allowed:.2f}", *(["--retry-failed"] if retry_failed else [])]
        summary = await self._runs.start(path, arguments)
        self._granted[path] = allowed
        return {"running": summary is None, "max_cost": allowed, "summary": summary}

    async def status(self, manifest: str) -> dict[str, Any]:
        """Count a batch's rows by status; says whether a run is going on, and how the last one ended."""
        path = self._path(manifest)
        running = self._runs.is_running(path)
        try:
            counts = await call(self._root, "status", self._target(path), "--json")
        except CommandFailed:
            if not running:
                raise
            counts = {"message": "a run is starting: ask again"}
        if not running and self._runs.last_error(path):
            counts["error"] = self._runs.last_error(path)
        return counts | {"running": running, "summary": None if running else self._runs.last_summary(path)}

    async def results(
        self, manifest: str, status: str = "", offset: int = 0, limit: int = 50
    ) -> dict[str, Any]:
        """List a batch's rows with their videos' paths, costs and errors; `status` chooses, e.g. failed."""
        paths = existing_batch_paths(self._target(self._path(manifest)), None)
        async with await open_read_only_ledger(paths) as ledger:
            rows = results_of(await ledger.load(), paths, sandbox=await made_by_sandbox(ledger))
        chosen = [row for row in rows if not status or row.status == status]
        shown = [asdict(row) for row in chosen[max(0, offset) : max(0, offset) + max(1, min(limit, 500))]]
        return {"total": len(chosen), "offset": offset, "rows": shown}

    async def pick(
        self, manifest: str, ids: list[str], reject: bool = False, note: str = ""
    ) -> dict[str, Any]:
        """Pick (or reject) takes by their ids. A row has one pick."""
        options = [*(["--reject"] if reject else []), *(["--note", note] if note else [])]
        return await call(self._root, "pick", self._target(self._path(manifest)), *options, "--", *ids)

    async def stop(self, manifest: str) -> dict[str, bool]:
        """Let a run submit no more; what is paid for is finished and saved. Running again continues."""
        return {"stopping": self._runs.stop(self._path(manifest))}

    def _path(self, manifest: str) -> Path:
        """Return a manifest's path. Raises `UsageError` for one outside of the server's folder."""
        path = (self._root / manifest).resolve()
        if not path.is_relative_to(self._root):
            raise UsageError(f"{manifest} is outside of {self._root}, where this server was started")
        return path

    def _target(self, manifest: Path) -> str:
        return str(self._runs.folder(manifest))

    async def _left(self, manifest: Path) -> float:
        """Return what this manifest may cost over all its runs: the budget less what others have taken."""
        others = [await self._taken(path) for path in self._granted if path != manifest]
        return max(0.0, self._max_cost - sum(others))

    async def _taken(self, manifest: Path) -> float:
        """Return what a batch costs: what it was granted while it runs, what its ledger counts after that."""
        if self._runs.is_running(manifest):
            return self._granted[manifest]
        paths = existing_batch_paths(self._target(manifest), None)
        async with await open_read_only_ledger(paths) as ledger:
            money = Book(await ledger.submissions()).totals()
        return money.spent_usd + money.assumed_usd + money.open_usd + money.maybe_usd


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
