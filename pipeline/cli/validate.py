"""`veobatch validate`: all problems of a manifest at once. Spends nothing, submits nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pipeline.cli.options import model_option, picture_options, picture_settings
from pipeline.cli.reporting.problems import manifest_problems_text, problems_json, warnings_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.manifest import ParsedManifest
    from pipeline.runner.manifest_loading import LoadedManifest


_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json", ".jsonl", ".ndjson", ".csv", ".tsv"})


@dataclass(frozen=True, slots=True)
class _Checks:
    """What is checked beyond the file itself, and where."""

    base_url: str | None
    model: str | None
    images: bool
    ways: dict[str, Any]
    allow_private_images: bool


@click.command()
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One object on stdout, for editors and scripts.")
@click.option("--check-images", is_flag=True, help="Look at the head of every image: type, size, shape.")
@click.option("--allow-private-images", is_flag=True, help="Let --check-images go to private addresses.")
@click.option("--base-url", metavar="URL", help="The API, for models that are not built in.")
@picture_options
@model_option
def command(
    manifests: tuple[Path, ...],
    as_json: bool,
    check_images: bool,
    allow_private_images: bool,
    base_url: str | None,
    model: str | None,
    **ways: Any,
) -> int:
    """Find every problem of each MANIFEST, with its line and column; of a folder, of all in it.

    Exits with 0 when there is none and with 2 when there is one. Models other than
    google/veo-3.1-i2v-fast are checked against the vendor's catalog when it can be reached.
    """
    files = _manifest_files(manifests)
    checks = _Checks(base_url, model, check_images, ways, allow_private_images)
    results = [_validate(path, checks, as_json=as_json) for path in files]
    if as_json:
        one = len(results) == 1 and manifests == tuple(files)
        _print(results[0] if one else {"ok": all(result["ok"] for result in results), "files": results})
    elif len(results) > 1:
        bad = sum(not result["ok"] for result in results)
        click.echo(f"{len(results)} manifests, {bad or 'none'} with problems")
    return 0 if all(result["ok"] for result in results) else 2


def _manifest_files(named: Sequence[Path]) -> list[Path]:
    """Return the files to check: those that are named, and the manifests of folders, hidden ones left out."""
    from pipeline.errors import UsageError

    files: list[Path] = []
    for path in named:
        inside = _folder_manifests(path) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"{path} holds no manifest ({', '.join(sorted(_SUFFIXES))})")
        files += inside
    return list(dict.fromkeys(files))


def _folder_manifests(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES
        and not path.name.endswith(".schema.json")
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _validate(path: Path, checks: _Checks, *, as_json: bool) -> dict[str, Any]:
    """Check one manifest; report it to people on stderr, and return what `--json` prints."""
    from pipeline.manifest import ManifestProblems

    try:
        loaded = _load(path, checks)
    except ManifestProblems as found:
        click.echo(manifest_problems_text(found), err=True)
        return {
            "ok": False,
            "file": str(path),
            "count": found.count,
            "problems": problems_json(found.problems),
            "warnings": problems_json(found.warnings),
        }
    return _print_valid(loaded, as_json=as_json)


def _load(path: Path, checks: _Checks) -> LoadedManifest:
    """Load the manifest; the network is touched (and its libraries imported) only when it is needed."""
    from pipeline.batch.pictures import check_pictures
    from pipeline.runner.manifest_loading import LoadedManifest, parse_manifest

    def with_pictures(loaded: LoadedManifest) -> LoadedManifest:
        settings = picture_settings(checks.ways, loaded.manifest)
        return loaded.with_doubts(*check_pictures(loaded.manifest, settings))

    parsed = parse_manifest(path, checks.model)
    if not parsed.other_models and (parsed.manifest is None or not checks.images):
        return with_pictures(LoadedManifest(parsed.checked()))
    import anyio

    return with_pictures(anyio.run(_load_online, parsed, checks))


async def _load_online(parsed: ParsedManifest, checks: _Checks) -> LoadedManifest:

    from pipeline.client.catalog import Catalog
    from pipeline.client.endpoint import normalize_base_url
    from pipeline.manifest import ManifestProblems
    from pipeline.net.http_session import make_session
    from pipeline.runner.credentials import find_base_url
    from pipeline.runner.manifest_loading import cache_dir, check_with_catalogue, image_warnings
    from pipeline.runner.retired_models import check_retired

    url = normalize_base_url(find_base_url(checks.base_url, os.environ))
    async with make_session() as session:
        catalogue = Catalog(session, url, cache_dir(), timeout_s=5.0)
        loaded = await check_with_catalogue(parsed, catalogue)
        retired = await check_retired((job.model for job in loaded.manifest.jobs), catalogue)
    if problems := retired.problems(loaded.manifest):
        raise ManifestProblems(problems, models=loaded.manifest.models)
    loaded = replace(loaded, retirement_notes=retired.notes)
    if not checks.images:
        return loaded
    return loaded.with_doubts(await image_warnings(loaded.manifest, checks.allow_private_images))


def _print_valid(loaded: LoadedManifest, *, as_json: bool) -> dict[str, Any]:
    manifest = loaded.manifest
    if warnings := warnings_text(manifest.warnings):
        click.echo(warnings, err=True)
    for note in loaded.notes:
        click.echo(f"note: {note}", err=True)
    jobs = f"{len(manifest.jobs):,} job{'' if len(manifest.jobs) == 1 else 's'}"
    if not as_json:
        click.echo(f"{manifest.path}: {jobs}, no problems")
    return {
        "ok": True,
        "file": str(manifest.path),
        "rows": len(manifest.jobs),
        "models": sorted({job.model for job in manifest.jobs}),
        "count": 0,
        "problems": [],
        "warnings": problems_json(manifest.warnings),
        "notes": list(loaded.notes),
    }


def _print(value: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(value, ensure_ascii=True))
