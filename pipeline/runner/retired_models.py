"""What the vendor's feed of models that retire means for a batch, before anything is submitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline import clocks
from pipeline.client.deprecations import find_deprecation
from pipeline.manifest.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.client.catalog import Catalog
    from pipeline.manifest import Manifest


@dataclass(frozen=True, slots=True)
class RetiredModels:
    """`notes` are for the user; `withdrawn` has the reason for each model that takes no create any more."""

    notes: tuple[str, ...] = ()
    withdrawn: Mapping[str, str] = field(default_factory=dict)

    @property
    def obstacle(self) -> str:
        """Why nothing can be submitted, in one line."""
        return "; ".join(self.withdrawn.values())

    def problems(self, manifest: Manifest) -> tuple[Problem, ...]:
        """Return a problem for each model that is withdrawn, at the first row that uses it."""
        first = {job.model: job for job in reversed(manifest.jobs)}
        return tuple(
            Problem(str(manifest.path), first[model].line, first[model].column, reason, "", "")
            for model, reason in self.withdrawn.items()
        )


async def check_retired(models: Iterable[str], catalogue: Catalog) -> RetiredModels:
    """Look up `models` in the feed; one that cannot be had changes nothing."""
    wanted = sorted(set(models))
    entries = await catalogue.fetch_deprecations() if wanted else ()
    today = datetime.fromtimestamp(clocks.wall(), UTC).date().isoformat()
    notes: list[str] = []
    withdrawn: dict[str, str] = {}
    for model in wanted:
        entry = find_deprecation(entries, model)
        if entry is not None and entry.is_withdrawn:
            withdrawn[model] = entry.message(model)
        elif entry is not None:
            notes.append(entry.message(model, today))
    return RetiredModels(tuple(notes), withdrawn)
