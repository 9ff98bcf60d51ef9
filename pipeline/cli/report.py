"""`veobatch report`: the projections again, from the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.cli.options import ledger_options

if TYPE_CHECKING:
    from pipeline.cli.paths import LedgerChoice


@click.command("report")
@click.argument("target", metavar="MANIFEST|DIR")
@click.option(
    "--output", metavar="DIR|URL", help="Where the batch lives, when not in output/<manifest's name>."
)
@ledger_options
def command(target: str, output: str | None, ledger_choice: LedgerChoice) -> int:
    """Write results.csv and report.html again. Asks nobody and submits nothing."""
    from pipeline.cli.looking import write_report

    return write_report(target, output, ledger_choice)
