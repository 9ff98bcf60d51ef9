"""From a manifest's path to a checked manifest, with the catalogue's help for models that are not built in.

For the built-in model no request is made. What the catalogue could not tell comes back as notes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from pipeline.manifest import BUILT_IN_MODEL, ManifestProblems, ModelRules, load, read_once

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.client.catalog import Catalog, ModelInfo
    from pipeline.manifest import Manifest
    from pipeline.manifest.local_files import LocalFile
    from pipeline.settings import Settings
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

    def without_jobs(self) -> LoadedManifest:
        """Return it without its rows, for whoever needs only what is around them."""
        return replace(self, manifest=replace(self.manifest, jobs=()))


def cache_dir() -> Path:
    """Return the user's directory for what is kept of the catalogue and of images."""
    from platformdirs import user_cache_path

    return user_cache_path("veobatch")


@dataclass(frozen=True, slots=True)
class ParsedManifest:
    """What a manifest is without the network: it holds, or has problems, and `others` need the catalogue."""

    path: Path
    manifest: Manifest | None
    problems: ManifestProblems | None
    other_models: frozenset[str]
    data: bytes | None = None
    model: str | None = None
    takes: int | None = None

    def to_loaded(self) -> LoadedManifest:
        """Return the manifest as it is; raises its problems."""
        if self.manifest is None:
            assert self.problems is not None  # noqa: S101 - there is one or the other
            raise self.problems
        return LoadedManifest(self.manifest)

    def without_manifest(self) -> ParsedManifest:
        """Return where it came from alone; `again` reads it once more."""
        return replace(self, manifest=None)

    def again(self) -> ParsedManifest:
        """Return the manifest as it stands now, read again when it was dropped."""
        if self.manifest is not None or self.problems is not None:
            return self
        return parse_manifest(self.path, self.model, self.takes, self.data)


def parse_manifest(
    path: Path, model: str | None = None, takes: int | None = None, data: bytes | None = None
) -> ParsedManifest:
    """Load the manifest at `path` against the built-in rules. A pipe is read here, once.

    `model` replaces the manifest's default model (`--model`), `takes` each row's own number (`--takes`).
    `data` is the text when there is no file.
    """
    try:
        data = read_once(path) if data is None else data
        manifest = load(path, data=data, model=model, takes=takes, check_file=_file_problem)
    except ManifestProblems as found:
        return ParsedManifest(path, None, found, found.models - {BUILT_IN_MODEL}, data, model, takes)
    return ParsedManifest(path, manifest, None, manifest.models - {BUILT_IN_MODEL}, data, model, takes)


def _file_problem(file: LocalFile) -> str:
    from pipeline.images.local import file_problem  # Pillow is not needed for most manifests

    return file_problem(file)


async def check_with_catalogue(parsed: ParsedManifest, catalogue: Catalog) -> LoadedManifest:
    """Load the manifest again with the rules of its other models, when it has any.

    Raises `ManifestProblems` with everything that is wrong.
    """
    if not parsed.other_models:
        return parsed.to_loaded()
    from anyio import to_thread

    model_infos = await catalogue.fetch_models(parsed.other_models)
    rules = known_rules(model_infos)
    load_again = partial(
        load,
        parsed.path,
        rules=rules,
        data=parsed.data,
        model=parsed.model,
        takes=parsed.takes,
        check_file=_file_problem,
    )
    manifest = await to_thread.run_sync(load_again)
    return LoadedManifest(manifest, model_infos)


async def check_manifest_images(loaded: LoadedManifest, allow_private: bool) -> LoadedManifest:
    """Look at every image; return the manifest with the doubts added to its warnings.

    Raises `ManifestProblems` for images that will not do.
    """
    from pipeline.images import check_images

    manifest = loaded.manifest
    checked = await check_images(
        manifest.jobs, str(manifest.path), allow_private=allow_private, cache_file=cache_dir() / "images.json"
    )
    if checked.problems:
        raise ManifestProblems(checked.problems, models=manifest.models)
    return replace(loaded, manifest=replace(manifest, warnings=(*manifest.warnings, *checked.warnings)))


def check_local_pictures(
    loaded: LoadedManifest, settings: Settings, *, sandbox: bool = False, needs_way: bool = True
) -> LoadedManifest:
    """Check the manifest's files; see `batch.pictures.check_pictures`."""
    from pipeline.batch.pictures import check_pictures

    manifest, notes = check_pictures(loaded.manifest, settings, sandbox=sandbox, needs_way=needs_way)
    return replace(loaded, manifest=manifest, picture_notes=notes)


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
