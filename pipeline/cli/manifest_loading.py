"""From a manifest's path to a checked manifest, with the catalogue's help for models that are not built in.

For the built-in model no request is made. What the catalogue could not tell comes back as notes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from pipeline.manifest import KNOWN_MODEL, ManifestProblems, ModelRules, load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.client.catalog import Catalogue, Listing
    from pipeline.manifest import Manifest
    from pipeline.submit.pricing import Quote


@dataclass(frozen=True, slots=True)
class Loaded:
    """A manifest that holds, and what the catalogue said of its other models."""

    manifest: Manifest
    listings: Mapping[str, Listing] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(note for listing in self.listings.values() for note in listing.notes)


def cache_dir() -> Path:
    """Return the user's directory for what is kept of the catalogue and of images."""
    from platformdirs import user_cache_path

    return user_cache_path("veobatch")


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What a manifest is without the network: it holds, or has problems, and `others` need the catalogue."""

    path: Path
    manifest: Manifest | None
    problems: ManifestProblems | None
    others: frozenset[str]

    def loaded(self) -> Loaded:
        """Return the manifest as it is; raises its problems."""
        if self.manifest is None:
            assert self.problems is not None  # noqa: S101 - there is one or the other
            raise self.problems
        return Loaded(self.manifest)


def first_look(path: Path) -> FirstLook:
    """Load the manifest at `path` against the built-in rules."""
    try:
        manifest = load(path)
    except ManifestProblems as found:
        return FirstLook(path, None, found, found.models - {KNOWN_MODEL})
    return FirstLook(path, manifest, None, manifest.models - {KNOWN_MODEL})


async def second_look(first: FirstLook, catalogue: Catalogue) -> Loaded:
    """Load the manifest again with the rules of its other models, when it has any.

    Raises `ManifestProblems` with everything that is wrong.
    """
    if not first.others:
        return first.loaded()
    from anyio import to_thread

    listings = await catalogue.look_up(first.others)
    manifest = await to_thread.run_sync(partial(load, first.path, rules=rules_of(listings)))
    return Loaded(manifest, listings)


async def load_checked(path: Path, catalogue: Catalogue) -> Loaded:
    """Load the manifest at `path`, each row checked against the rules of its own model.

    Raises `ManifestProblems` with everything that is wrong.
    """
    from anyio import to_thread

    return await second_look(await to_thread.run_sync(first_look, path), catalogue)


async def with_images(loaded: Loaded, allow_private: bool) -> Loaded:
    """Look at every image; return the manifest with the doubts added to its warnings.

    Raises `ManifestProblems` for images that will not do.
    """
    from pipeline.images import check_images

    manifest = loaded.manifest
    found = await check_images(
        manifest.jobs, str(manifest.path), allow_private=allow_private, cache_file=cache_dir() / "images.json"
    )
    if found.problems:
        raise ManifestProblems(found.problems, models=manifest.models)
    return replace(loaded, manifest=replace(manifest, warnings=(*manifest.warnings, *found.warnings)))


def rules_of(listings: Mapping[str, Listing]) -> dict[str, ModelRules]:
    """Return the rules that are known; a model that the vendor does not have is marked as such."""
    rules: dict[str, ModelRules] = {}
    for model, listing in listings.items():
        if listing.rules is not None:
            rules[model] = listing.rules
        elif not listing.listed:
            rules[model] = ModelRules(model, MappingProxyType({}), listed=False)
    return rules


async def priced(loaded: Loaded, catalogue: Catalogue) -> tuple[Quote, tuple[str, ...]]:
    """Price every job from the live catalogue; return the quote and notes for the user.

    Rows whose price cannot be had are unknown in the quote; nothing is raised for the network's sake.
    """
    from pipeline.submit.pricing import quote

    missing = {job.model for job in loaded.manifest.jobs} - loaded.listings.keys()
    listings = {**loaded.listings, **await catalogue.look_up(missing, with_rules=False)}
    prices = {model: found.pricing for model, found in listings.items() if found.pricing is not None}
    defaults = {model: found.rules.defaults for model, found in listings.items() if found.rules is not None}
    notes = tuple(note for found in listings.values() for note in found.notes)
    return quote(loaded.manifest.jobs, prices, defaults), notes
