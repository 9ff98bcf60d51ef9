"""`veobatch validate`: all problems of a manifest at once. Spends nothing, submits nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.cli.manifest_loading import LoadedManifest, ParsedManifest
    from pipeline.manifest import ManifestProblems


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One object on stdout, for editors and scripts.")
@click.option("--check-images", is_flag=True, help="Look at the head of every image: type, size, shape.")
@click.option("--allow-private-images", is_flag=True, help="Let --check-images go to private addresses.")
@click.option("--base-url", metavar="URL", help="The API, for models that are not built in.")
def command(
    manifest: Path, as_json: bool, check_images: bool, allow_private_images: bool, base_url: str | None
) -> int:
    """Find every problem of MANIFEST, each with its line and column.

    Exits with 0 when there is none and with 2 when there is one. Models other than
    google/veo-3.1-i2v-fast are checked against the vendor's catalogue when it can be reached.
    """
    from pipeline.manifest import ManifestProblems

    try:
        loaded = _load(manifest, base_url, check_images, allow_private_images)
    except ManifestProblems as found:
        _print_problems(manifest, found, as_json)
        return 2
    _print_valid(loaded, as_json)
    return 0


def _load(path: Path, base_url: str | None, check_images: bool, allow_private: bool) -> LoadedManifest:
    """Load the manifest; the network is touched (and its libraries imported) only when it is needed."""
    from pipeline.cli.manifest_loading import parse_manifest

    parsed = parse_manifest(path)
    if not parsed.other_models and (parsed.manifest is None or not check_images):
        return parsed.to_loaded()
    import anyio

    return anyio.run(_load_online, parsed, base_url, check_images, allow_private)


async def _load_online(
    parsed: ParsedManifest, base_url: str | None, check_images: bool, allow_private: bool
) -> LoadedManifest:
    import os

    import aiohttp

    from pipeline.cli.credentials import find_base_url
    from pipeline.cli.manifest_loading import cache_dir, check_manifest_images, check_with_catalogue
    from pipeline.client.catalog import Catalog
    from pipeline.client.client import USER_AGENT, normalize_base_url

    url = normalize_base_url(find_base_url(base_url, os.environ))
    async with aiohttp.ClientSession(headers={"User-Agent": USER_AGENT}) as session:
        loaded = await check_with_catalogue(parsed, Catalog(session, url, cache_dir(), timeout_s=5.0))
    return await check_manifest_images(loaded, allow_private) if check_images else loaded


def _print_problems(path: Path, found: ManifestProblems, as_json: bool) -> None:
    from pipeline.cli.problems import annotate_on_github, format_problems, use_colour
    from pipeline.cli.problems import problems_json as objects

    if as_json:
        _print({"ok": False, "file": str(path), "count": found.count, "problems": objects(found.problems)})
    click.echo(format_problems(found.problems, found.count, colour=use_colour(sys.stderr)), err=True)
    annotate_on_github(found)


def _print_valid(loaded: LoadedManifest, as_json: bool) -> None:
    from pipeline.cli.problems import format_problems, use_colour
    from pipeline.cli.problems import problems_json as objects

    manifest = loaded.manifest
    if manifest.warnings:
        colour = use_colour(sys.stderr)
        text = format_problems(manifest.warnings, len(manifest.warnings), colour=colour, label="warning")
        click.echo(text, err=True)
    for note in loaded.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        _print(
            {
                "ok": True,
                "file": str(manifest.path),
                "rows": len(manifest.jobs),
                "models": sorted({job.model for job in manifest.jobs}),
                "count": 0,
                "problems": [],
                "warnings": objects(manifest.warnings),
                "notes": list(loaded.notes),
            }
        )
    else:
        jobs = f"{len(manifest.jobs):,} job{'' if len(manifest.jobs) == 1 else 's'}"
        click.echo(f"{manifest.path}: {jobs}, no problems")


def _print(value: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(value, ensure_ascii=True))
