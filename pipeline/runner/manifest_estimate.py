"""What a manifest will cost, by row and in all, and what is on the account. Spends nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from pipeline.batch.pictures import check_pictures
from pipeline.client.catalog import Catalog
from pipeline.client.reachability import check_api
from pipeline.errors import UsageError
from pipeline.net.http_session import make_session
from pipeline.runner.manifest_loading import check_with_catalogue, price_manifest
from pipeline.runner.preflight import raise_obstacle
from pipeline.runner.retired_models import check_retired
from pipeline.settings import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.client import ApiKey
    from pipeline.manifest import ParsedManifest
    from pipeline.model import Job
    from pipeline.submit.pricing import Quote


@dataclass(frozen=True, slots=True)
class Estimate:
    """The price of every job of a manifest, whatever has been run of it. Money in USD.

    `balance_usd` is None when it is not known. `notes` are for people.
    """

    jobs: Sequence[Job]
    quote: Quote
    balance_usd: float | None
    notes: tuple[str, ...]

    @property
    def usd(self) -> float | None:
        """The sum of the known prices; None when none is known."""
        return self.quote.total_usd

    @property
    def unknown_rows(self) -> int:
        """How many rows have no known price, and are not in `usd`."""
        return self.quote.unknown_rows

    @property
    def by_row(self) -> dict[str, float | None]:
        """The price of each row by its id; None where it is not known."""
        return {job.id: price for job, price in zip(self.jobs, self.quote.prices, strict=True)}


async def estimate_manifest(
    parsed: ParsedManifest,
    base_url: str,
    key: ApiKey | None,
    cache: Path | None,
    ways: Mapping[str, Any] | None = None,
    *,
    sandbox: bool = False,
) -> Estimate:
    """Price the manifest from the live catalogue; `cache` is where models are cached, None for nowhere.

    `ways` are settings that say how local pictures travel; those of the manifest come after them. The
    `sandbox` takes them by value.
    Raises `ManifestProblems`, `UsageError` for a model that is withdrawn, and `StopRun` or `UsageError` for a
    key that is refused and an API that cannot be reached.
    """
    if not parsed.other_models:
        parsed.checked()  # a mistake is reported before the network is asked
    found = await check_api(base_url, key)
    warnings = raise_obstacle(found)
    async with make_session() as session:
        catalogue = Catalog(session, base_url, cache)
        loaded = await check_with_catalogue(parsed, catalogue)
        manifest = loaded.manifest
        known_warnings = len(manifest.warnings)
        settings = resolve([("the command line", ways or {}), (f"{manifest.path}: run", manifest.run)])
        check = partial(check_pictures, manifest, settings, sandbox=sandbox, needs_way=False)
        loaded = loaded.with_doubts(*await to_thread.run_sync(check))
        quote, notes = await price_manifest(loaded, catalogue)
        retired = await check_retired((job.model for job in loaded.manifest.jobs), catalogue)
    if retired.withdrawn:
        raise UsageError(retired.obstacle)
    if key is not None and found.balance_usd is None:
        warnings += ("the balance could not be read",)
    warnings = (*map(str, loaded.manifest.warnings[known_warnings:]), *loaded.picture_notes, *warnings)
    return Estimate(loaded.manifest.jobs, quote, found.balance_usd, (*retired.notes, *notes, *warnings))
