"""`veobatch status`: counts by state, from the ledger alone, also while a run is going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.cli.options import ledger_options

if TYPE_CHECKING:
    from pipeline.cli.paths import LedgerChoice


@click.command("status")
@click.argument("target", metavar="MANIFEST|DIR")
@click.option("--output", metavar="DIR", help="Where the batch lives, when not in output/<manifest's name>.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Go on showing it every second until the batch is finished.")
@ledger_options
def command(target: str, output: str | None, ledger_choice: LedgerChoice, as_json: bool, watch: bool) -> int:
    """Say how many rows of a batch are pending, generating, done and so on. Changes nothing."""
    from pipeline.cli.looking import show_status

    return show_status(target, output, ledger_choice, as_json=as_json, watch=watch)
