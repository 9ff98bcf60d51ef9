"""`veobatch reel`: the chosen clips as one film, and a contact sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.batch.paths import existing_batch_paths
from pipeline.cli.options import ledger_options
from pipeline.errors import ExitCode

if TYPE_CHECKING:
    from pipeline.batch.paths import BatchPaths, LedgerChoice


@click.command("reel")
@click.argument("target", metavar="MANIFEST|DIR")
@click.option("--all", "everything", is_flag=True, help="Every saved clip, not the picks alone.")
@click.option("--slates", is_flag=True, help="Show each clip's id and prompt before it, for two seconds.")
@click.option(
    "--output", metavar="DIR|URL", help="Where the batch lives, when not in output/<manifest's name>."
)
@ledger_options
def command(
    target: str, everything: bool, slates: bool, output: str | None, ledger_choice: LedgerChoice
) -> int:
    """Join the picks to reel.mp4, in the manifest's order, and show them on contact-sheet.png.

    Pictures are copied as they are when all clips agree in size and coding, else encoded.
    """
    import anyio

    return anyio.run(_reel, existing_batch_paths(target, output, ledger_choice), everything, slates)


async def _reel(paths: BatchPaths, everything: bool, slates: bool) -> int:
    from pipeline.batch.ledger_access import open_shared_ledger
    from pipeline.results.reel import make_reel, reel_clips
    from pipeline.storage import open_store

    store = open_store(paths.output)
    try:
        async with await open_shared_ledger(paths) as ledger:
            clips = reel_clips(await ledger.load(), everything=everything)
            made = await make_reel(ledger, store, clips, slates=slates)
    finally:
        await store.aclose()
    shape = made.shape
    how = "copied" if shape.copied else f"encoded at {shape.width}x{shape.height}, {float(shape.fps):g} fps"
    click.echo(f"{len(clips)} clip{'' if len(clips) == 1 else 's'}, pictures {how}", err=True)
    if made.missing_glyphs:
        listed = ", ".join(made.missing_glyphs)
        click.echo(
            f"note: no font of this machine has {listed}: named in brackets; Noto fonts have all", err=True
        )
    click.echo("\n".join(paths.output_path(name) for name in made.paths))
    return int(ExitCode.DONE)
