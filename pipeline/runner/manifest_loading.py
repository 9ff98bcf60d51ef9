"""From a manifest's path to a checked manifest, with the catalogue's help for models that are not built in.

For the built-in model no request is made. What the catalogue could not tell comes back as notes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from anyio import to_thread

from pipeline.manifest import ManifestProblems, ModelRules, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pipeline.client.catalog import Catalog, ModelInfo
    from pipeline.manifest import Manifest, ParsedManifest, Problem
    from pipeline.manifest.local_files import LocalFile
    from pipeline.model import Job
    from pipeline.submit.pricing import Quote


@dataclass(frozen=True, slots=True)
class LoadedManifest:
    """A manifest that holds, and what the catalogue said of its other models."""

    manifest: Manifest
    model_infos: Mapping[str, ModelInfo] = field(default_factory=dict)
    retirement_notes: tuple[str, ...] = ()
    picture_notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        catalogue = (note for info in self.model_infos.values() for note in info.notes)
        return (*self.picture_notes, *self.retirement_notes, *catalogue)

    def with_doubts(self, warnings: Iterable[Problem], picture_notes: tuple[str, ...] = ()) -> LoadedManifest:
        """Return it with further warnings, and notes on how its pictures travel."""
        manifest = replace(self.manifest, warnings=(*self.manifest.warnings, *warnings))
        return replace(self, manifest=manifest, picture_notes=(*self.picture_notes, *picture_notes))

    def without_jobs(self) -> LoadedManifest:
        """Return it without its rows, for whoever needs only what is around them."""
        return replace(self, manifest=replace(self.manifest, jobs=()))


def cache_dir() -> Path:
    """Return the user's directory for what is kept of the catalogue and of images."""
    from platformdirs import user_cache_path

    return user_cache_path("veobatch")


def parse_manifest(
    path: Path, model: str | None = None, takes: int | None = None, data: bytes | None = None
) -> ParsedManifest:
    """Parse the manifest at `path`, with a look at the files that it names if it has other problems."""
    return parse(path, model, takes, data, file_problem)


def file_problem(file: LocalFile) -> str:
    """Return what is wrong with a picture, "" for nothing."""
    from pipeline.images.local import file_problem as find  # Pillow is not needed for most manifests

    return find(file)


async def fetch_other_models(parsed: ParsedManifest, catalogue: Catalog) -> Mapping[str, ModelInfo]:
    """Return what the catalogue says of the models that are not built in; no request is made without any."""
    return await catalogue.fetch_models(parsed.other_models) if parsed.other_models else {}


async def check_with_catalogue(parsed: ParsedManifest, catalogue: Catalog) -> LoadedManifest:
    """Load the manifest again with the rules of its other models, when it has any.

    Raises `ManifestProblems` with everything that is wrong.
    """
    infos = await fetch_other_models(parsed, catalogue)
    manifest = await to_thread.run_sync(parsed.checked, known_rules(infos))
    return LoadedManifest(manifest, infos)


@dataclass(frozen=True, slots=True)
class ManifestChoice:
    """A manifest, and what a run is given beside it that changes its rows; `base_url` is the catalogue's."""

    path: Path
    model: str | None = None
    takes: int | None = None
    base_url: str | None = None


async def load_by_catalogue(choice: ManifestChoice) -> Manifest:
    """Load the manifest with the rows that a run of it has. Raises `ManifestProblems`.

    The catalogue is asked only for models that are not built in.
    """
    parsed = await to_thread.run_sync(parse_manifest, choice.path, choice.model, choice.takes)
    if not parsed.other_models:
        return parsed.checked()
    import os

    from pipeline.client.catalog import Catalog
    from pipeline.client.endpoint import normalize_base_url
    from pipeline.net.http_session import make_session
    from pipeline.runner.credentials import find_base_url

    url = normalize_base_url(find_base_url(choice.base_url, os.environ))
    async with make_session() as session:
        loaded = await check_with_catalogue(parsed, Catalog(session, url, cache_dir(), timeout_s=5.0))
    return loaded.manifest


async def image_warnings(
    manifest: Manifest, allow_private: bool, jobs: Sequence[Job] | None = None
) -> tuple[Problem, ...]:
    """Look at the images of `jobs`, all by default; return the doubts.

    Raises `ManifestProblems` for images that will not do.
    """
    from pipeline.images import check_images

    jobs = manifest.jobs if jobs is None else jobs
    checked = await check_images(
        jobs, str(manifest.path), allow_private=allow_private, cache_file=cache_dir() / "images.json"
    )
    if checked.problems:
        raise ManifestProblems(checked.problems, models=manifest.models)
    return checked.warnings


def known_rules(model_infos: Mapping[str, ModelInfo]) -> dict[str, ModelRules]:
    """Return the rules that are known; a model that the vendor does not have is marked as such."""
    rules: dict[str, ModelRules] = {}
    for model, model_info in model_infos.items():
        if model_info.rules is not None:
            rules[model] = model_info.rules
        elif not model_info.listed:
            rules[model] = ModelRules(model, MappingProxyType({}), model_exists=False)
    return rules


async def price_manifest(loaded: LoadedManifest, catalogue: Catalog) -> tuple[Quote, tuple[str, ...]]:
    """Price every job from the live catalogue; return the quote and notes for the user.

    Rows whose price cannot be had are unknown in the quote; nothing is raised for the network's sake.
    """
    from pipeline.submit.pricing import quote

    missing = {job.model for job in loaded.manifest.jobs} - loaded.model_infos.keys()
    model_infos = {**loaded.model_infos, **await catalogue.fetch_models(missing, with_rules=False)}
    prices = {model: found.pricing for model, found in model_infos.items() if found.pricing is not None}
    defaults = {
        model: found.rules.defaults for model, found in model_infos.items() if found.rules is not None
    }
    notes = tuple(note for found in model_infos.values() for note in found.notes)
    return quote(loaded.manifest.jobs, prices, defaults), notes
