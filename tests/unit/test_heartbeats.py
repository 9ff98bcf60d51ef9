"""What a worker's heartbeat says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import clocks
from pipeline.cluster.heartbeats import doubt_ages_s
from pipeline.model import State
from tests.unit.sample_rows import row

if TYPE_CHECKING:
    import pytest


def test_a_doubt_of_this_run_ages_by_a_clock_that_nobody_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its slot is free once it cannot be rendering: a wall clock that is set an hour ahead says nothing."""
    monkeypatch.setattr(clocks, "monotonic", lambda: 50.0)
    monkeypatch.setattr(clocks, "wall", lambda: 9000.0)
    own, other = (row(n, State.IN_DOUBT, correlation_id=f"c{n}", submitted_at=5000.0) for n in range(2))
    assert doubt_ages_s([own, other], {"c0": 20.0}) == (30.0, 4000.0)
