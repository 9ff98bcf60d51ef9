"""From checked rows to jobs: their ids, and their takes. Pure.

Takes are several goes at one row, each a job of its own, so that one of them can be chosen. Take 1 is the
row itself, with its id and its identity; take 2 of `a` is the job `a.2`. A seed that is chosen here is no
part of a job's identity: it follows from the row.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.fields import FieldKind, FieldRule, ModelRules, blank_problem
from pipeline.manifest.identity import canonical_json, fingerprint
from pipeline.manifest.invisible_characters import is_blank
from pipeline.manifest.nodes import MappingNode, SequenceNode
from pipeline.manifest.problems import ProblemReport, ProblemText, format_value
from pipeline.model import Job, SeedRange
from pipeline.row_keys import canonical_id, canonical_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.manifest.nodes import Member

MAX_ID_CHARS: Final = 200
_ID_RULE: Final = FieldRule(FieldKind.TEXT, max_size=MAX_ID_CHARS)

MAX_TAKES: Final = 100
TAKES_RULE: Final = FieldRule(FieldKind.INTEGER, minimum=1, maximum=MAX_TAKES)
_HIGHEST_SEED: Final = 2**31 - 1
"""Where the schema states no bound; every model that has seeds takes a positive 32-bit number."""


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


def pop_takes(fields: dict[str, Member], in_params: Iterable[str], report: ProblemReport) -> int:
    """Take the row's `takes` out of its fields: 1 when it says nothing. A wrong one goes into the report."""
    if "takes" not in fields or "takes" in in_params:  # a model's own field of that name stands in `params`
        return 1
    member = fields.pop("takes")
    value: Any = [] if isinstance(member.value, MappingNode | SequenceNode) else member.value
    if problem := TAKES_RULE.check("takes", value):
        report.add_problem(member.value_location, *problem)
        return 1
    return int(value)


def pop_seeds(fields: dict[str, Member], rules: ModelRules, report: ProblemReport) -> tuple[int, ...]:
    """Return the seeds of a `seed: [7, 21, 40]`, one a take, and leave the first in the fields."""
    rule, member = rules.fields.get("seed"), fields.get("seed")
    if rule is None or rule.kind is not FieldKind.INTEGER or member is None:
        return ()
    value: Any = member.value.items if isinstance(member.value, SequenceNode) else member.value
    if not isinstance(value, list) or not value:
        return ()
    for seed in value[1:]:  # the first is checked as the row's own
        if problem := rule.check("seed", [] if isinstance(seed, MappingNode | SequenceNode) else seed):
            report.add_problem(member.value_location, *problem)
    fields["seed"] = member._replace(value=value[0])
    return tuple(seed for seed in value if isinstance(seed, int))


def seed_range(rules: ModelRules) -> SeedRange | None:
    """Return the seeds that a model takes, None when its schema has no such field."""
    rule = rules.fields.get("seed")
    if rule is None or rule.kind is not FieldKind.INTEGER or rule.choices:
        return None
    lowest = max(0, int(rule.minimum or 0))
    return SeedRange(lowest, max(lowest, int(_HIGHEST_SEED if rule.maximum is None else rule.maximum)))


def check_take_ids(drafts: Sequence[JobDraft], report: ProblemReport) -> None:
    """Report rows whose own id is that of another row's take."""
    locations = {canonical_id(draft.given_id): draft.location for draft in drafts if draft.given_id}
    for draft in drafts:
        for take in range(2, draft.takes + 1) if draft.given_id else ():
            location = locations.get(f"{canonical_id(draft.given_id or '')}.{take}")
            if location is not None:
                what = f"id {format_value(f'{draft.given_id}.{take}')} is taken"
                why = f"it is take {take} of the row of line {draft.location >> 32}"
                report.add_problem(location, what, why, "choose another id")


def takes_of(row: Job, count: int, given_seeds: Sequence[int] = ()) -> list[Job]:
    """Return the row's takes 1 to `count`, at positions from the row's own on."""
    if count == 1:
        return [row]
    return [nth_take(row, take, given_seeds) for take in range(1, count + 1)]


def nth_take(row: Job, take: int, given_seeds: Sequence[int] = ()) -> Job:
    job = replace(row, take=take, index=row.index + take - 1)
    if take > 1:
        job = replace(job, id=f"{row.id}.{take}")
    if take <= len(given_seeds):
        body = {**row.body, "seed": given_seeds[take - 1]}
        return replace(job, body=body, fingerprint=fingerprint(canonical_json(body)))
    return job if row.seeds is None else replace(job, body={**row.body, "seed": _seed(row, take, row.seeds)})


def _seed(row: Job, take: int, seeds: SeedRange) -> int:
    """Return the take's seed: the row's own, or one that follows from the row, and from there on upwards."""
    given: Any = row.body.get("seed")
    first = given if isinstance(given, int) else int(hashlib.sha256(row.key.encode()).hexdigest()[:15], 16)
    return seeds.lowest + (first - seeds.lowest + take - 1) % (seeds.highest - seeds.lowest + 1)


def take_seed(body: str) -> str:
    """Return the seed that a body sends, "" when it has none."""
    if '"seed"' not in body:
        return ""
    fields: Any = json.loads(body)
    return str(fields.get("seed", "")) if isinstance(fields, dict) else ""


def with_extra_takes(jobs: Sequence[Job], extra: Mapping[str, Sequence[int]]) -> Sequence[Job]:
    """Add takes beyond the manifest's own, by the key of the row's first take; rows keep their order."""
    if not extra:
        return jobs
    present = {job.key for job in jobs}
    takes: dict[str, list[int]] = defaultdict(list)
    for key, numbers in extra.items():
        takes[canonical_key(key)] += numbers
    found: list[Job] = []
    for position, job in enumerate(jobs):
        found.append(job)
        last = position + 1 == len(jobs) or jobs[position + 1].take == 1
        if last:
            row = next(first for first in reversed(found) if first.take == 1)
            wanted = (nth_take(row, take) for take in takes.get(row.key, ()))
            found += [take for take in wanted if take.key not in present]
    return [replace(job, index=index) for index, job in enumerate(found)]
