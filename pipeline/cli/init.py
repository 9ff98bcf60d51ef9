"""`veobatch init`: a manifest of a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.batch.folder_manifest import FolderManifest


def folder_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which pictures of a folder count, and what their prompts are."""
    options = (
        click.option(
            "--prompt",
            metavar="TEXT",
            help="The prompt of pictures that have none; {stem} is the picture's name.",
        ),
        click.option(
            "--captions",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            help="A table of pictures and prompts.  [default: captions.csv in the folder]",
        ),
        click.option("--recursive", is_flag=True, help="Look into the folders in the folder, too."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The manifest to write.  [default: FOLDER's name with .yaml, here]",
)
@click.option("--append", is_flag=True, help="Add what is new to a manifest that exists.")
@click.option("--model", metavar="NAME", help="The model.  [default: google/veo-3.1-i2v-fast]")
@folder_options
def command(folder: Path, path: Path | None, append: bool, model: str | None, **found: Any) -> int:
    """Write a manifest of the pictures in FOLDER: one row each, in natural order, called after the picture.

    A prompt is taken from a text beside the picture (cat.txt beside cat.jpg), else from captions.csv, else
    from --prompt. Nothing is written over.
    """
    made = make_manifest(folder, path or Path(f"{folder.resolve().name}.yaml"), model, append=append, **found)
    click.echo(f"{made.path}: {made.added:,} row{'' if made.added == 1 else 's'} added")
    report_repeated(made)
    if made.without_prompt:
        click.echo(
            f"{made.without_prompt:,} without a prompt: write it there, or begin anew with --prompt", err=True
        )
    else:
        click.echo(f"Next: veobatch estimate {made.path}", err=True)
    return 0


def make_manifest(
    folder: Path,
    path: Path,
    model: str | None,
    *,
    append: bool,
    prompt: str | None,
    captions: Path | None,
    recursive: bool,
    is_shared: bool = True,
) -> FolderManifest:
    """Write the manifest; see `batch.folder_manifest`."""
    from pipeline.batch.folder_manifest import FolderOptions, write_manifest
    from pipeline.manifest import BUILT_IN_MODEL

    options = FolderOptions(prompt, captions, recursive, model or BUILT_IN_MODEL)
    return write_manifest(folder, path, options, append=append, is_shared=is_shared)


def report_repeated(made: FolderManifest) -> None:
    """Say which pictures got no row, since one has their content."""
    if not made.repeated:
        return
    first, count = made.repeated[0], len(made.repeated)
    what = "1 picture has" if count == 1 else f"{count:,} pictures have"
    such_as = "" if count == 1 else "such as "
    click.echo(
        f"{what} a row under another name and got no second one: {such_as}{first.path}, the same picture as "
        f"{first.known_as}",
        err=True,
    )
