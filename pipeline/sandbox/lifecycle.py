"""Models on their way out: what the vendor's deprecation feed says, and what follows for a create. Pure.

Facts: the vendor's `GET /v1/models/deprecations`. `deprecated` still serves until its shutdown and is no
longer listed once a date is set; `superseded` resolves to its replacement; `withdrawn` answers a create with
404.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

if TYPE_CHECKING:
    from pipeline.sandbox.catalog import Model

RetirementStatus = Literal["deprecated", "superseded", "withdrawn"]
RETIREMENT_SYNTAX: Final = "MODEL=deprecated|superseded|withdrawn[,YYYY-MM-DD][,REPLACEMENT]"
_DATE_PATTERN: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Retirement:
    """One entry of the feed. `shutdown_on` is a date or ""; `replaced_by` is a model's id or ""."""

    model: str
    status: RetirementStatus
    shutdown_on: str = ""
    replaced_by: str = ""
    deprecated_on: str = "2026-10-01"
    reason: str = "The provider has retired this model."

    def __post_init__(self) -> None:
        """Raises `ValueError` for a status or a date that does not exist."""
        if self.status not in get_args(RetirementStatus):
            raise ValueError(f"retired: {self.status!r} is none of {', '.join(get_args(RetirementStatus))}")
        for text in filter(None, (self.shutdown_on, self.deprecated_on)):
            date.fromisoformat(text)

    @property
    def is_listed(self) -> bool:
        """Whether `GET /v1/models` still has the model."""
        return self.status == "superseded" or (self.status == "deprecated" and not self.shutdown_on)

    def entry(self, model: Model | None) -> dict[str, Any]:
        """The feed's entry; `model` is the catalogue's, when it has one."""
        return {
            "id": self.model,
            "aliases": list(model.aliases) if model is not None else [],
            "status": self.status,
            "deprecated_at": f"{self.deprecated_on}T00:00:00.000Z",
            "shutdown_at": f"{self.shutdown_on}T00:00:00.000Z" if self.shutdown_on else None,
            "replaced_by": self.replaced_by or None,
            "reason": self.reason,
        }


def parse_retirement(text: str) -> Retirement:
    """Read `RETIREMENT_SYNTAX`; raises `ValueError` that quotes it."""
    model, found, rest = text.partition("=")
    status, *details = rest.split(",")
    dates = [part for part in details if _DATE_PATTERN.fullmatch(part)]
    others = [part for part in details if part and part not in dates]
    if not found or not model or len(dates) > 1 or len(others) > 1:
        raise ValueError(f"retired: {text!r} does not fit {RETIREMENT_SYNTAX}")
    return Retirement(model, cast("RetirementStatus", status), "".join(dates), "".join(others))
