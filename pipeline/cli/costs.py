"""`veobatch costs`: the ledger's money against the vendor's own log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.cli.options import ledger_options

if TYPE_CHECKING:
    from pipeline.cli.paths import LedgerChoice


@click.command("costs")
@click.argument("target", metavar="MANIFEST|DIR")
@click.option("--output", metavar="DIR", help="Where the batch lives, when not in output/<manifest's name>.")
@click.option("--base-url", metavar="URL", help="The API's address.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@ledger_options
def command(
    target: str, output: str | None, ledger_choice: LedgerChoice, base_url: str | None, as_json: bool
) -> int:
    """Compare what the ledger says was spent with what the vendor logged, and list every difference.

    Costs that the ledger did not know are written into it. Exit code 1 when something differs.
    """
    from pipeline.cli.costing import show_costs

    return show_costs(target, output, ledger_choice, base_url, as_json=as_json)
