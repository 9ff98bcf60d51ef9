"""`veobatch estimate`: what a manifest will cost, by row and in all, and what is on the account."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import model_option, picture_options, takes_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.model import Job
    from pipeline.runner.manifest_estimate import Estimate
    from pipeline.submit.pricing import Quote

_ROWS_SHOWN = 40


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One object on stdout, for scripts.")
@click.option("--base-url", metavar="URL", help="The API whose prices are asked for.")
@click.option("--sandbox", is_flag=True, help="Ask the embedded stand-in: no key, no network.")
@picture_options
@model_option
@takes_option
def command(
    manifest: Path,
    as_json: bool,
    base_url: str | None,
    sandbox: bool,
    model: str | None,
    takes: int | None,
    **ways: Any,
) -> int:
    """Price MANIFEST from the live catalogue: each row, each model, in all. Spends nothing.

    A price that is not known is called unknown. The balance needs a key; prices do not. A key that is
    refused, or an API that cannot be reached, is an error.
    """
    import anyio

    estimate = anyio.run(
        _estimate_in_sandbox if sandbox else _estimate, manifest, base_url, model, takes, ways
    )
    jobs, quote, balance = estimate.jobs, estimate.quote, estimate.balance_usd
    for note in estimate.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        _print_json(jobs, quote, balance)
    else:
        _print_text(jobs, quote, balance)
    return 0


async def _estimate(
    path: Path, base_url: str | None, model: str | None, takes: int | None, ways: Mapping[str, Any]
) -> Estimate:
    import os

    from anyio import to_thread

    from pipeline.client.endpoint import normalize_base_url
    from pipeline.runner.credentials import find_base_url, find_key
    from pipeline.runner.manifest_estimate import estimate_manifest
    from pipeline.runner.manifest_loading import cache_dir, parse_manifest

    url = normalize_base_url(find_base_url(base_url, os.environ))
    key = find_key(os.environ)
    parsed = await to_thread.run_sync(parse_manifest, path, model, takes)
    return await estimate_manifest(parsed, url, key, cache_dir(), ways)


async def _estimate_in_sandbox(
    path: Path, base_url: str | None, model: str | None, takes: int | None, ways: Mapping[str, Any]
) -> Estimate:
    from anyio import to_thread

    from pipeline.errors import UsageError
    from pipeline.runner.manifest_estimate import estimate_manifest
    from pipeline.runner.manifest_loading import parse_manifest
    from pipeline.sandbox import Sandbox

    if base_url:
        raise UsageError("--sandbox and --base-url exclude each other")
    parsed = await to_thread.run_sync(parse_manifest, path, model, takes)
    async with Sandbox() as sandbox:
        return await estimate_manifest(parsed, str(sandbox.url), None, None, ways, sandbox=True)


def _print_json(jobs: Sequence[Job], quote: Quote, balance: float | None) -> None:
    import json

    by_model: dict[str, Any] = {
        model: {"rows": share.rows, "total_usd": share.total_usd, "unknown_rows": share.unknown_rows}
        for model, share in quote.by_model.items()
    }
    click.echo(
        json.dumps(
            {
                "rows": quote.rows,
                "manifest_rows": _manifest_rows(jobs),
                "total_usd": quote.total_usd,
                "unknown_rows": quote.unknown_rows,
                "balance_usd": balance,
                "by_model": by_model,
            }
        )
    )


def _print_text(jobs: Sequence[Job], quote: Quote, balance: float | None) -> None:
    for job, price in list(zip(jobs, quote.prices, strict=True))[:_ROWS_SHOWN]:
        click.echo(f"{_usd(price):>12}  {job.id}  {_shortened(job.prompt)}")
    if len(jobs) > _ROWS_SHOWN:
        click.echo(f"{'...':>12}  and {len(jobs) - _ROWS_SHOWN:,} more rows")
    click.echo("")
    for model, share in quote.by_model.items():
        unknown = f", {share.unknown_rows:,} of them unknown" if share.unknown_rows else ""
        click.echo(f"{_usd(share.total_usd):>12}  {model}: {_rows(share.rows)}{unknown}")
    click.echo(f"{_usd(quote.total_usd):>12}  in all{_takes_note(jobs)}{_unknown_note(quote)}")
    if balance is not None:
        click.echo(f"{_usd(balance):>12}  on the account{_shortfall_note(quote, balance)}")


def _usd(amount: float | None) -> str:
    return "unknown" if amount is None else f"{amount:,.2f} USD"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _manifest_rows(jobs: Sequence[Job]) -> int:
    """Return how many rows the jobs are takes of."""
    return len({job.row_id for job in jobs})


def _takes_note(jobs: Sequence[Job]) -> str:
    several = any(job.take > 1 for job in jobs)
    return f", {len(jobs):,} takes of {_rows(_manifest_rows(jobs))}" if several else ""


def _unknown_note(quote: Quote) -> str:
    """Say what the total leaves out: a sum of known prices is not the price of everything."""
    if quote.unknown_rows and quote.total_usd is not None:
        return f", and {_rows(quote.unknown_rows)} whose price is unknown"
    return ""


def _shortfall_note(quote: Quote, balance: float) -> str:
    missing = (quote.total_usd or 0) - balance
    return f", {missing:,.2f} USD too little" if missing > 0 else ""


def _shortened(text: str, width: int = 60) -> str:
    from pipeline.manifest.problems import escape_unprintable

    line = escape_unprintable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 3] + "..."
