"""Jobs and records as the rules see them, made in one line."""

from __future__ import annotations

from typing import Any

from pipeline.model import Job, Record, State
from pipeline.plan import new_record

MODEL = "google/veo-3.1-i2v-fast"
IMAGE = "https://example.com/mona.jpg"


def job(name: str = "row", index: int = 0, *, prompt: str = "She laughs.", **fields: Any) -> Job:
    """A row of a manifest; its fingerprint is its prompt, so that an edit makes another job."""
    body = {"model": MODEL, "image_url": IMAGE, "prompt": prompt, **fields}
    return Job(name, f"f-{prompt}", index, MODEL, body, line=index + 2, column=1)


def record(state: State = State.PENDING, name: str = "row", index: int = 0, **facts: Any) -> Record:
    """A record in any state, with the facts such a record has, as if an earlier run had left it."""
    made = new_record(job(name, index), name)
    usual: dict[str, Any] = {}
    if state is not State.PENDING:
        usual = {"version": 3, "submission_no": 1, "correlation_id": f"vb.{name}.1", "submitted_at": 1000.0}
    if state in (State.GENERATING, State.READY, State.DONE):
        usual |= {"generation_id": f"g-{name}", "accepted_at": 1001.0, "attempts": 1}
    return _with(made, state=state, **(usual | facts))


def _with(made: Record, **facts: Any) -> Record:
    """`evolve` is for legal steps; a record that is found may be anywhere."""
    from dataclasses import replace

    return replace(made, **facts)
