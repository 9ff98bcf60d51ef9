"""`veobatch adopt`: a generation that was made elsewhere becomes a row's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import ledger_options

if TYPE_CHECKING:
    from pipeline.cli.paths import LedgerChoice


@click.command("adopt", context_settings={"ignore_unknown_options": True})
@click.argument("manifest", type=click.Path(path_type=Path))
@click.argument("job")
@click.argument("generation_id")
@click.option("--output", metavar="DIR|URL", help="Where videos go.  [default: output/<manifest's name>]")
@ledger_options
def command(
    manifest: Path, job: str, generation_id: str, output: str | None, ledger_choice: LedgerChoice
) -> int:
    """Take over GENERATION_ID as the generation of the row JOB (its id) of MANIFEST.

    The next run fetches it and does not pay for the row. Only a row that is pending, failed or in doubt
    can adopt.
    """
    from pipeline.cli.looking import adopt

    return adopt(manifest, job, generation_id, output, ledger_choice)
