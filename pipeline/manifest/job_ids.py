"""Ids: what one given in the manifest may be, and the one a row without it gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.fields import (
    FieldKind,
    FieldRule,
    blank_problem,
)
from pipeline.manifest.invisible import is_blank
from pipeline.manifest.problems import ProblemText, format_value
from pipeline.manifest.takes import takes_of
from pipeline.model import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.model import SeedRange

MAX_ID_CHARS: Final = 200


@dataclass(slots=True)
class JobDraft:
    """A checked row that has no id yet, unless its author gave one."""

    given_id: str | None
    fingerprint: str
    body: dict[str, Any]
    location: int
    takes: int = 1
    given_seeds: tuple[int, ...] = ()
    seeds: SeedRange | None = None
    image: str = ""


_ID_RULE: Final = FieldRule(FieldKind.TEXT, max_size=MAX_ID_CHARS)


def check_id(value: Any) -> ProblemText | None:
    problem = _ID_RULE.check("id", value)
    if problem:
        return problem
    if is_blank(value):
        return blank_problem("id", value, "it names the row and its files", "write a name or remove the line")
    if not value.isprintable():
        return (
            f"id is {format_value(value)}",
            "it holds characters that cannot be printed",
            "use letters, digits and dashes",
        )
    return None


def build_jobs(drafts: Sequence[JobDraft]) -> list[Job]:
    """Give every draft its id and its index, and every take of it.

    A row without an id is named by its content and, from the second of the same content on, an
    occurrence number, so that moving or adding other rows renames nothing.
    """
    given_ids = {draft.given_id for draft in drafts}
    occurrences: dict[str, int] = {}
    jobs: list[Job] = []
    for draft in drafts:
        row_id = draft.given_id or _unique_id(draft.fingerprint, occurrences, given_ids)
        model = draft.body["model"]
        line, column = draft.location >> 32, draft.location & 0xFFFFFFFF
        index, image = len(jobs), draft.image
        row = Job(row_id, draft.fingerprint, index, model, draft.body, line, column, 1, draft.seeds, image)
        jobs += takes_of(row, draft.takes, draft.given_seeds)
    return jobs


def _unique_id(fingerprint: str, occurrences: dict[str, int], taken: set[str | None]) -> str:
    while True:
        occurrences[fingerprint] = number = occurrences.get(fingerprint, 0) + 1
        row_id = fingerprint if number == 1 else f"{fingerprint}-{number}"
        if row_id not in taken:
            return row_id
