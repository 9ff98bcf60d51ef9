"""Histories that were kept: what happened, fault by fault, independent of how seeds choose theirs by now."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.chance import Fault
from tests.simulation.vendor import Pace

if TYPE_CHECKING:
    from collections.abc import Mapping

CORPUS: Final = Path(__file__).with_name("corpus.jsonl")
LARGE_ROWS: Final = (100, 150, 200)
"""How many rows a large world has: more than are ever in flight at once."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user keeps from run to run. Without `workers` it is all on one machine."""

    rows: int
    concurrency: int
    max_cost: float | None
    reconcile_after: float
    generation_retries: int
    timeout: float
    workers: int = 0

    @property
    def is_large(self) -> bool:
        return self.rows >= min(LARGE_ROWS)


@dataclass(frozen=True, slots=True)
class History:
    """The faults of a world, its user's options and its vendor; the seed decides on what is left: delays."""

    seed: int
    options: Options
    pace: Pace
    faults: tuple[Fault, ...]

    def to_json(self, name: str) -> str:
        """Return the history on one line, under a name."""
        faults = [
            [fault.point, fault.number, fault.kind, *((fault.at,) if fault.point == "life" else ())]
            for fault in self.faults
        ]
        options, pace = asdict(self.options), asdict(self.pace)
        if not self.options.workers:
            del options["workers"]
        return json.dumps(
            {"name": name, "seed": self.seed, "options": options, "pace": pace, "faults": faults}
        )


def _from_json(value: Any) -> History:
    return History(
        value["seed"],
        Options(**value["options"]),
        Pace(**value["pace"]),
        tuple(Fault(*fault) for fault in value["faults"]),
    )


def load_corpus() -> Mapping[str, History]:
    """Return the histories that are kept, by name."""
    lines = CORPUS.read_text(encoding="utf-8").splitlines() if CORPUS.exists() else []
    values = [json.loads(line) for line in lines]
    return {value["name"]: _from_json(value) for value in values}


def write_corpus(histories: Mapping[str, History]) -> None:
    """Keep these histories and no others; other processes read them meanwhile."""
    lines = [history.to_json(name) + "\n" for name, history in histories.items()]
    part = CORPUS.with_suffix(".part")
    part.write_text("".join(lines), encoding="utf-8")
    part.replace(CORPUS)
