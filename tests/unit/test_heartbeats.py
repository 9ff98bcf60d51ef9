"""What a worker's heartbeat says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import clocks
from pipeline.cluster.heartbeats import DoubtAges
from pipeline.model import State
from tests.unit.sample_rows import row

if TYPE_CHECKING:
    import pytest


def test_a_doubt_ages_by_clocks_that_nobody_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its slot is free once it cannot be rendering: a wall clock that is set an hour ahead says nothing.

    A worker that takes it over has a clock of its own, and may learn the vendor's only later.
    """
    monkeypatch.setattr(clocks, "monotonic", iter((50.0, 60.0, 70.0)).__next__)
    monkeypatch.setattr(clocks, "wall", lambda: 9000.0)
    own, other = (
        row(n, State.IN_DOUBT, correlation_id=f"c{n}", submitted_at=5000.0, vendor_sent_at=4800.0)
        for n in range(2)
    )
    undated = row(2, State.IN_DOUBT, correlation_id="c2", submitted_at=5000.0)
    doubts = [own, other, undated]
    ages = DoubtAges(iter((None, 4900.0, None)).__next__)
    assert ages.ages_s(doubts, {"c0": 20.0}) == (30.0, 0.0, 0.0)
    assert ages.ages_s(doubts, {"c0": 20.0}) == (40.0, 100.0, 10.0)
    assert ages.ages_s([undated], {}) == (20.0,)
