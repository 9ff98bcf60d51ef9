"""`veobatch reconcile`: rows in doubt against the vendor's log, once, row by row."""

from __future__ import annotations

import json
import os
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pipeline import clocks
from pipeline.batch.paths import existing_batch_paths
from pipeline.cli.options import ledger_options
from pipeline.cli.reporting.terminal import one_line
from pipeline.errors import ExitCode, UsageError
from pipeline.model import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.batch.paths import BatchPaths, LedgerChoice
    from pipeline.client import Api
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.reconcile.evidence import Missing
    from pipeline.reconcile.reconciler import Reconciler

MANAGEMENT_KEY_VARIABLE: Final = "AIMLAPI_MANAGEMENT_KEY"
PREFIX_CHARS: Final = 8
SANDBOX_SPEED: Final = 20.0


@click.command("reconcile")
@click.argument("target", metavar="MANIFEST|DIR")
@click.option("--output", metavar="DIR", help="Where the batch lives, when not in output/<manifest's name>.")
@click.option("--base-url", metavar="URL", help="The API's address.")
@click.option(
    "--reconcile-after",
    type=click.FloatRange(min=0),
    metavar="S",
    envvar="VEOBATCH_RECONCILE_AFTER",
    help="How long a row's absence from the vendor's log leaves it in doubt, in seconds.  [default: 2700]",
)
@click.option(
    "--key-prefix",
    "key_prefixes",
    metavar="PREFIX",
    multiple=True,
    help="First 8 characters of another key that sent rows in doubt; needs AIMLAPI_MANAGEMENT_KEY.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@ledger_options
def command(
    target: str,
    output: str | None,
    ledger_choice: LedgerChoice,
    base_url: str | None,
    reconcile_after: float | None,
    key_prefixes: tuple[str, ...],
    as_json: bool,
) -> int:
    """Ask the vendor's log about the rows in doubt of a batch, settle what is proven, and end.

    Nothing is submitted. Each row is listed with what became of it, or with what a proof still lacks and what
    would supply it. A proof takes two passes some minutes apart, both long after the create: run the command
    again. Exit code 3 when rows stay in doubt.
    """
    import anyio

    if key_prefixes and not os.environ.get(MANAGEMENT_KEY_VARIABLE, "").strip():
        raise UsageError(f"--key-prefix reads another key's log: set {MANAGEMENT_KEY_VARIABLE}")
    if any(len(prefix) != PREFIX_CHARS for prefix in key_prefixes):
        raise UsageError(f"--key-prefix takes the first {PREFIX_CHARS} characters of a key")
    from pipeline.batch.ownership import reject_foreign_files

    paths = existing_batch_paths(target, output, ledger_choice)
    reject_foreign_files(paths)
    after_s = _manifest_setting(target) if reconcile_after is None else reconcile_after
    return anyio.run(_reconcile, paths, base_url, after_s, key_prefixes, as_json)


def _manifest_setting(target: str) -> float | None:
    from pipeline.manifest import load

    path = Path(target)
    value = None if path.is_dir() else load(path).run.get("reconcile_after")
    return None if value is None else float(value)


async def _reconcile(
    paths: BatchPaths, base_url: str | None, after_s: float | None, prefixes: Sequence[str], as_json: bool
) -> int:
    from pipeline.batch.ledger_access import open_exclusive_ledger

    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(
            open_exclusive_ledger(paths, what=f"veobatch reconcile {paths.folder}")
        )
        in_doubt = await _rows_in_doubt(ledger)
        missing: dict[str, tuple[Missing, ...]] = {}
        if in_doubt:
            sandbox = await ledger.meta_get("vendor") == "sandbox"
            for api, prefix in await _open_apis(stack, paths, base_url, prefixes, sandbox=sandbox):
                reconciler = _make_reconciler(api, ledger, after_s, prefix, sandbox=sandbox)
                missing = await _ask(ledger, reconciler, missing)
        records = {record.key: record for record in await ledger.load()}
    rows = [_as_row(records[record.key], missing.get(record.key, ())) for record in in_doubt]
    return _show(rows, as_json=as_json)


async def _rows_in_doubt(ledger: Ledger) -> list[Record]:
    """Return the rows in doubt; a submission that a killed run left without an answer is one of them."""
    from pipeline.plan import mark_interrupted

    rows = []
    for record in await ledger.load():
        if record.state is State.SUBMITTING:
            rows.append(await ledger.commit(record, mark_interrupted(record)))
        elif record.state is State.IN_DOUBT:
            rows.append(record)
    return rows


async def _open_apis(
    stack: AsyncExitStack, paths: BatchPaths, base_url: str | None, prefixes: Sequence[str], *, sandbox: bool
) -> list[tuple[Api, str]]:
    """Return the clients to ask with, each with the prefix of the key whose log it reads, or nothing."""
    from pipeline.batch.ledger_access import SANDBOX_VENDOR
    from pipeline.client import Api, ApiKey
    from pipeline.runner.credentials import find_base_url, find_key, require_key
    from pipeline.runner.embedded_sandbox import SANDBOX_KEY, start_sandbox

    if sandbox:
        url, warnings = await start_sandbox(stack, paths.folder, SANDBOX_SPEED)
        for warning in warnings:
            click.echo(warning, err=True)
        key = ApiKey(SANDBOX_KEY, "--sandbox")
        return [(await stack.enter_async_context(Api(url, key, name=SANDBOX_VENDOR)), "")]
    url = find_base_url(base_url, os.environ)
    management = ApiKey(os.environ.get(MANAGEMENT_KEY_VARIABLE, "").strip(), MANAGEMENT_KEY_VARIABLE)
    own_key = find_key(os.environ) if prefixes else require_key(os.environ, hint="The log is a key's own.")
    pairs = [(own_key, "")] if own_key is not None else []
    pairs += [(management, prefix) for prefix in prefixes]
    return [(await stack.enter_async_context(Api(url, key)), prefix) for key, prefix in pairs]


def _make_reconciler(
    api: Api, ledger: Ledger, after_s: float | None, prefix: str, *, sandbox: bool
) -> Reconciler:
    from pipeline.client import key_id
    from pipeline.client.log_responses import LOG_REQUEST_GAP_S
    from pipeline.poll.unknown_generations import UnknownIds
    from pipeline.reconcile.reconciler import Reconciler
    from pipeline.runner.embedded_sandbox import sandbox_reconcile_after_s
    from pipeline.settings import RECONCILE_AFTER_S, Settings

    default_s = sandbox_reconcile_after_s(SANDBOX_SPEED) if sandbox else RECONCILE_AFTER_S
    return Reconciler(
        api,
        ledger.identity,
        default_s if after_s is None else after_s,
        clocks.monotonic,
        clocks.wall,
        LOG_REQUEST_GAP_S,
        key_id(api.key.secret, ledger.identity),
        ledger.load,
        UnknownIds(Settings().poll_interval, {}, set()),
        key_prefix=prefix,
    )


async def _ask(
    ledger: Ledger, reconciler: Reconciler, missing: dict[str, tuple[Missing, ...]]
) -> dict[str, tuple[Missing, ...]]:
    """Commit what one pass proves; return what each row that is still in doubt lacks.

    Of several keys' logs, the one that lacks least speaks for a row.
    """
    from pipeline.reconcile.evidence import Premise
    from pipeline.reconcile.in_doubt import StillInDoubt, describe, mark_explained
    from pipeline.settings import Settings

    records = await ledger.load()
    in_doubt = [record for record in records if record.state is State.IN_DOUBT]
    _, verdicts = await reconciler.ask(in_doubt, records, {})
    verdicts = await reconciler.ask_failed(in_doubt, verdicts)
    lacks: dict[str, tuple[Missing, ...]] = {}
    for record in in_doubt:
        verdict = verdicts[record.key]
        retries = Settings().generation_retries
        after = reconciler.settle(record, verdict, generation_retries=retries)
        if isinstance(verdict, StillInDoubt):
            other_key = any(lack.premise is Premise.KEY for lack in verdict.missing)
            lacks[record.key] = missing.get(record.key, verdict.missing) if other_key else verdict.missing
            after = await _commit(ledger, record, after)
            await _commit(ledger, after, mark_explained(after, describe(lacks[record.key])) or after)
        else:
            await _commit(ledger, record, after)
    return lacks


async def _commit(ledger: Ledger, before: Record, after: Record) -> Record:
    return before if after is before else await ledger.commit(before, after)


def _as_row(record: Record, missing: Sequence[Missing]) -> dict[str, Any]:
    return {
        "id": record.id,
        "line": record.line,
        "status": record.state.value,
        "generation_id": record.generation_id,
        "message": _message(record),
        "missing": [asdict(lack) for lack in missing],
    }


def _message(record: Record) -> str:
    match record.state:
        case State.GENERATING:
            return "found in the vendor's log; the next run goes on with it"
        case State.PENDING:
            return "proven never to have been accepted; the next run submits it again"
        case _:
            return record.failure.message if record.failure is not None else "the log does not settle it yet"


def _show(rows: list[dict[str, Any]], *, as_json: bool) -> int:
    open_rows = sum(row["status"] == State.IN_DOUBT for row in rows)
    code = ExitCode.RESUMABLE if open_rows else ExitCode.DONE
    if as_json:
        click.echo(json.dumps({"rows": rows, "in_doubt": open_rows, "exit_code": int(code)}))
        return int(code)
    for row in rows:
        click.echo(f"{row['id']} (line {row['line']})  {row['status']}: {one_line(row['message'])}")
    click.echo(f"{len(rows)} row(s) were in doubt; {open_rows} still are" if rows else "no row is in doubt")
    return int(code)
