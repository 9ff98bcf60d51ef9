"""`veobatch mcp`: the tools of a batch for assistants, over standard input and output."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("mcp")
@click.option(
    "--max-cost",
    type=click.FloatRange(min=0),
    required=True,
    metavar="USD",
    help="What all batches that the assistant runs may cost together.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="The folder of manifests and output; nothing outside is read.  [default: here]",
)
@click.option("--sandbox", is_flag=True, help="Run against the embedded stand-in: free, no key, no network.")
def command(max_cost: float, root: Path, sandbox: bool) -> int:
    """Let an assistant validate, estimate, run and read batches (Model Context Protocol, stdio).

    Needs the extra `mcp`. A run goes on when the assistant or this server ends; nothing is ever deleted.
    """
    from pipeline.cli.assistant.server import Assistant, make_server

    make_server(Assistant(root, max_cost, sandbox=sandbox)).run("stdio")
    return 0
