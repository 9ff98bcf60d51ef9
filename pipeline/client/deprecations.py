"""Models that retire, by the vendor's feed `GET /v1/models/deprecations`. Pure; the feed needs no key.

Facts: the vendor's documentation. A `deprecated` model serves until its shutdown and may be missing from the
list of models already; a `superseded` one still resolves, as an alias of its successor; creates with a
`withdrawn` one are answered with 404. A name may be an entry's `id` or one of its `aliases`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pipeline.client.json_values import storable_text

if TYPE_CHECKING:
    from collections.abc import Iterable


class Lifecycle(StrEnum):
    """How far a model's retirement has come, by the feed's own names."""

    SUPERSEDED = "superseded"
    DEPRECATED = "deprecated"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Deprecation:
    """One entry of the feed. `shutdown_on` is a date (YYYY-MM-DD) or ""; so may `replaced_by` be ""."""

    model: str
    aliases: frozenset[str]
    status: Lifecycle
    shutdown_on: str = ""
    replaced_by: str = ""
    reason: str = ""

    @property
    def is_withdrawn(self) -> bool:
        """Return whether the feed itself says that creates are refused."""
        return self.status is Lifecycle.WITHDRAWN

    def is_shut_down(self, today: str) -> bool:
        """Return whether creates are refused by now; `today` is a date (YYYY-MM-DD)."""
        ended = self.status is Lifecycle.DEPRECATED and "" < self.shutdown_on <= today
        return ended or self.is_withdrawn

    def message(self, name: str, today: str = "") -> str:
        """Say in one sentence what the entry means for those who use the model by `name`, and what helps.

        `today` (YYYY-MM-DD) tells a shutdown that lies ahead from one that is past.
        """
        use = f"; use {self.replaced_by} (in the manifest, or with --model {self.replaced_by})"
        advice = use if self.replaced_by else ""
        match self.status:
            case Lifecycle.WITHDRAWN:
                other = advice or "; choose another model (in the manifest, or with --model NAME)"
                return f"the vendor has withdrawn the model {name}{other}"
            case Lifecycle.DEPRECATED:
                shuts = "meant to shut" if today and self.is_shut_down(today) else "shuts"
                until = f" and {shuts} it down on {self.shutdown_on}" if self.shutdown_on else ""
                return f"the vendor has deprecated the model {name}{until}{advice}"
            case Lifecycle.SUPERSEDED:
                successor = self.replaced_by or "its successor"
                return f"the model {name} is superseded: the vendor answers for it with {successor}"


def parse_deprecations(document: Any) -> tuple[Deprecation, ...]:
    """Read the feed; what is no entry, or has a status that is not known, is left out."""
    items = document.get("data") if isinstance(document, dict) else document
    entries = (_parse_entry(item) for item in items) if isinstance(items, list) else ()
    return tuple(entry for entry in entries if entry is not None)


def find_deprecation(entries: Iterable[Deprecation], model: str) -> Deprecation | None:
    """Return the entry whose id is `model`, else the one that has it among its aliases."""
    by_alias = None
    for entry in entries:
        if entry.model == model:
            return entry
        if by_alias is None and model in entry.aliases:
            by_alias = entry
    return by_alias


def _parse_entry(item: Any) -> Deprecation | None:
    if not isinstance(item, dict):
        return None
    model = _text(item.get("id"))
    try:
        status = Lifecycle(_text(item.get("status")).lower())
    except ValueError:
        return None
    if not model:
        return None
    aliases = item.get("aliases")
    names = frozenset(_text(name) for name in aliases) if isinstance(aliases, list) else frozenset[str]()
    shutdown_on = _text(item.get("shutdown_at"))[:10]
    replaced_by, reason = _text(item.get("replaced_by")), _text(item.get("reason"))
    return Deprecation(model, names - {""}, status, shutdown_on, replaced_by, reason)


def _text(value: object) -> str:
    return " ".join(storable_text(value).split())[:300] if isinstance(value, str) else ""
