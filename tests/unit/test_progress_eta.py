"""The time left, in a simulated run whose end is known."""

from __future__ import annotations

import heapq
import random
from dataclasses import replace

import pytest

from pipeline.cli.eta import Eta, rest_s
from pipeline.model import State
from tests.unit.projection_rows import T0, done, row


def errors_of_a_run(durations: list[float], slots: int) -> list[float]:
    """Play a run with `slots`; return the errors of the time left from a third on, as shares of the run."""
    now = [T0]
    rows = [row(index) for index in range(len(durations))]
    eta = Eta(rows, slots, wall=lambda: now[0])
    guesses: list[tuple[float, float]] = []
    flying: list[tuple[float, int]] = []
    waiting = iter(range(len(rows)))

    def submit() -> None:
        index = next(waiting, None)
        if index is not None:
            sent = rows[index].evolve(State.SUBMITTING, submitted_at=now[0])
            rows[index] = sent.evolve(State.GENERATING)
            eta.moved(sent, rows[index])
            heapq.heappush(flying, (now[0] + durations[index], index))

    for _ in range(slots):
        submit()
    while flying:
        now[0], index = heapq.heappop(flying)
        after = rows[index].evolve(State.READY, finished_at=now[0])
        eta.moved(rows[index], after)
        eta.moved(after, replace(after, state=State.DONE, downloaded_at=now[0]))
        submit()
        now[0] += 1e-3
        left = eta()
        if left is not None and flying:
            guesses.append((now[0], left))
    end = now[0]
    third = T0 + (end - T0) / 3
    # Shares of what is left would say nothing at the end, when all hangs on the one slowest rendering.
    return [abs(left - (end - at)) / (end - T0) for at, left in guesses if third <= at]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("rows", "slots", "bound"), [(60, 20, 0.2), (400, 20, 0.08), (400, 7, 0.05), (1500, 100, 0.08)]
)
def test_the_time_left_is_right_after_a_third(seed: int, rows: int, slots: int, bound: float) -> None:
    chance = random.Random(seed)
    errors = errors_of_a_run([min(240.0, max(45.0, chance.gauss(90, 18))) for _ in range(rows)], slots)
    assert errors, "nothing was estimated"
    assert max(errors) < bound


def test_nothing_is_said_before_anything_is_known() -> None:
    eta = Eta([row(index) for index in range(3)], 2, wall=lambda: T0)
    assert eta() is None


def test_a_batch_that_is_done_has_nothing_left() -> None:
    assert Eta([row(0, State.DONE)], 2, wall=lambda: T0)() == 0.0


def test_a_continued_run_knows_what_the_one_before_saw() -> None:
    before = [done(index, 90.0) for index in range(5)]
    forgotten = [done(index, 40_000.0, not_yet_at=None) for index in range(5, 10)]
    eta = Eta([*before, *forgotten, row(10), row(11)], 2, wall=lambda: T0 + 90_000)
    sent = row(10, State.SUBMITTING, submitted_at=T0 + 90_000)
    eta.moved(sent, sent.evolve(State.GENERATING))
    assert eta() == pytest.approx(180, abs=5), "one after the other, as the vendor lets in one"


def test_a_hundred_thousand_rows_take_their_share_of_the_slots() -> None:
    left = rest_s([80.0, 90.0, 100.0], [], 100_000, 100)
    assert left == pytest.approx(100_000 * 90 / 100, rel=0.01)
