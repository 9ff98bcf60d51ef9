"""The time left, in a simulated run whose end is known."""

from __future__ import annotations

import heapq
import json
import math
import random
import statistics
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.events import Event, Topic
from pipeline.model import Record, State
from pipeline.poll.duration_distribution import fit_distribution
from pipeline.poll.duration_key import duration_key
from pipeline.poll.eta import EtaEstimator
from pipeline.poll.finish_simulation import time_left_s
from pipeline.poll.learner import DurationLearner
from tests.unit.sample_rows import T0, done, row

untraced = pytest.mark.no_cover
"""Long computations take four times as long under coverage; shorter tests cover the same lines."""


def eta_errors(durations: list[float], slots: int) -> list[float]:
    """Play a run with `slots`; return the errors of the time left from a third on, as shares of the run."""
    third = T0 + (end_of_run(durations, slots) - T0) / 3
    now = [T0]
    rows = [row(index) for index in range(len(durations))]
    eta = EtaEstimator(rows, slots, wall=lambda: now[0])
    guesses: list[tuple[float, float]] = []
    flying: list[tuple[float, int]] = []
    waiting = iter(range(len(rows)))

    def submit() -> None:
        index = next(waiting, None)
        if index is not None:
            sent = rows[index].evolve(State.SUBMITTING, submitted_at=now[0])
            rows[index] = sent.evolve(State.GENERATING)
            eta.on_transition(sent, rows[index])
            heapq.heappush(flying, (now[0] + durations[index], index))

    for _ in range(slots):
        submit()
    while flying:
        now[0], index = heapq.heappop(flying)
        after = rows[index].evolve(State.READY, finished_at=now[0])
        eta.on_transition(rows[index], after)
        eta.on_transition(after, replace(after, state=State.DONE, downloaded_at=now[0]))
        submit()
        now[0] += 1e-3
        if now[0] < third or not flying or (len(flying) == slots and index % max(1, len(rows) // 15)):
            continue
        left = eta()
        if left is not None:
            guesses.append((now[0], left))
    end = now[0]
    # Shares of what is left would say nothing at the end, when all hangs on the one slowest rendering.
    return [abs(left - (end - at)) / (end - T0) for at, left in guesses]


def end_of_run(durations: list[float], slots: int) -> float:
    """Return when a run of these durations ends, as `eta_errors` plays it."""
    flying, now = [T0 + duration for duration in durations[:slots]], T0
    heapq.heapify(flying)
    for duration in durations[slots:]:
        now = heapq.heappop(flying)
        heapq.heappush(flying, now + duration)
    return max([now, *flying])


@untraced
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("rows", "slots", "bound"), [(60, 20, 0.2), (400, 20, 0.08), (400, 7, 0.05), (1500, 100, 0.08)]
)
def test_the_time_left_is_right_after_a_third(seed: int, rows: int, slots: int, bound: float) -> None:
    chance = random.Random(seed)
    errors = eta_errors([min(240.0, max(45.0, chance.gauss(90, 18))) for _ in range(rows)], slots)
    assert errors, "nothing was estimated"
    assert max(errors) < bound


def test_nothing_is_said_before_anything_is_known() -> None:
    eta = EtaEstimator([row(index) for index in range(3)], 2, wall=lambda: T0)
    assert eta() is None


def test_a_batch_that_is_done_has_nothing_left() -> None:
    assert EtaEstimator([row(0, State.DONE)], 2, wall=lambda: T0)() == 0.0


def test_in_doubt_row_makes_eta_unknown() -> None:
    rows = [done(0), row(1, State.IN_DOUBT, submitted_at=T0)]
    assert EtaEstimator(rows, 2, wall=lambda: T0 + 100)() is None


def test_a_continued_run_knows_what_the_one_before_saw() -> None:
    before = [done(index, 90.0) for index in range(5)]
    forgotten = [done(index, 40_000.0, not_yet_at=None) for index in range(5, 10)]
    eta = EtaEstimator([*before, *forgotten, row(10), row(11)], 2, wall=lambda: T0 + 90_000)
    sent = row(10, State.SUBMITTING, submitted_at=T0 + 90_000)
    eta.on_transition(sent, sent.evolve(State.GENERATING))
    assert eta() == pytest.approx(180, abs=5), "one after the other, as the vendor lets in one"


def submit_at(eta: EtaEstimator, index: int, at: float) -> Record:
    sent = row(index, State.SUBMITTING, submitted_at=at)
    made = sent.evolve(State.GENERATING)
    eta.on_transition(sent, made)
    return made


def learner_with_cache(*took_s: float) -> DurationLearner:
    """Return what an earlier run would have left of generations that took so long."""
    learner, kind = DurationLearner(), duration_key(row(0).model, json.loads(row(0).body))
    for took in took_s:
        learner.on_still_running(kind, 0.0, took - 5.0)
        learner.on_finished(kind, took - 5.0, took)
    return learner


def test_one_rendering_that_ended_is_enough_for_a_word() -> None:
    now = [T0]
    eta = EtaEstimator([row(index) for index in range(6)], 6, wall=lambda: now[0])
    made = [submit_at(eta, index, T0) for index in range(6)]
    now[0] += 60.0
    assert eta() is None
    eta.on_transition(made[0], made[0].evolve(State.READY, finished_at=now[0]))
    now[0] += 1.0
    left = eta()
    assert left is not None
    assert 5.0 < left < 180.0


def test_single_wave_is_estimated_from_the_start_with_cache() -> None:
    now = [T0]
    learner = learner_with_cache(*(70.0 + 2 * i for i in range(20)))
    eta = EtaEstimator([row(index) for index in range(20)], 20, learner=learner, wall=lambda: now[0])
    for index in range(20):
        submit_at(eta, index, T0)
    now[0] += 1.0
    first = eta()
    now[0] += 60.0
    later = eta()
    assert first == pytest.approx(108.0, abs=15.0)
    assert later == pytest.approx(48.0, abs=15.0)


def test_what_this_run_sees_soon_outweighs_what_is_remembered() -> None:
    now = [T0]
    eta = EtaEstimator(
        [row(i) for i in range(200)], 10, learner=learner_with_cache(*[40.0] * 100), wall=lambda: now[0]
    )
    for wave in range(3):
        made = [submit_at(eta, 10 * wave + i, now[0]) for i in range(10)]
        now[0] += 120.0
        for record in made:
            eta.on_transition(record, record.evolve(State.READY, finished_at=now[0]))
    assert eta() == pytest.approx(17 * 120.0, rel=0.25)


def test_a_slow_kind_that_comes_last_takes_its_own_time() -> None:
    now = [T0]
    slow = json.dumps({"model": "vendor/slow"})
    rows = [row(i) for i in range(10)] + [row(i, model="vendor/slow", body=slow) for i in range(10, 35)]
    eta = EtaEstimator(rows, 10, wall=lambda: now[0])
    for index in (*range(5), *range(10, 15), *range(5, 10)):
        at = T0 + (50.0 if 5 <= index < 10 else 0.0)
        sent = rows[index].evolve(State.SUBMITTING, submitted_at=at)
        rows[index] = sent.evolve(State.GENERATING)
        eta.on_transition(sent, rows[index])
    for index in (*range(10), *range(10, 15)):
        now[0] = T0 + (50.0 if index < 5 else 100.0 if index < 10 else 400.0)
        eta.on_transition(rows[index], rows[index].evolve(State.READY, finished_at=now[0]))
    # 20 of 400 s on ten slots are two waves; an average of all that was seen would be a third of that.
    assert eta() == pytest.approx(800.0, rel=0.15)


def test_a_run_that_submits_no_more_counts_what_is_in_flight_alone() -> None:
    now = [T0 + 60.0]
    rows = [*(done(index, 90.0, submitted_at=T0) for index in range(10)), *(row(i) for i in range(10, 500))]
    eta = EtaEstimator(rows, 5, wall=lambda: now[0])
    for index in range(10, 15):
        submit_at(eta, index, T0 + 60.0)
    before = eta()
    assert before is not None
    assert before > 3600.0
    eta.on_event(Event(Topic.STOPPING, "out of credits"))
    assert eta() == pytest.approx(90.0, abs=12.0)


def test_the_driver_of_a_cluster_may_miss_the_states_between() -> None:
    now = [T0]
    eta = EtaEstimator([row(index) for index in range(4)], 2, wall=lambda: now[0])
    submit_at(eta, 0, T0)
    now[0] += 80.0
    eta.on_transition(row(1), done(1, 80.0, submitted_at=T0))
    left = eta()
    assert left is not None
    assert 80.0 < left < 260.0


def test_a_night_off_does_not_make_renderings_long() -> None:
    morning = T0 + 40_000.0
    now = [morning]
    rows = [done(index, 90.0) for index in range(6)]
    rows += [row(index, State.GENERATING, submitted_at=T0, not_yet_at=T0 + 50) for index in range(6, 9)]
    eta = EtaEstimator([*rows, *(row(index) for index in range(9, 12))], 3, wall=lambda: now[0])
    for index in range(9, 12):
        submit_at(eta, index, morning)
    assert eta() == pytest.approx(90.0, abs=15.0)


def test_one_that_hangs_does_not_make_the_others_slow() -> None:
    now = [T0]
    eta = EtaEstimator([row(index) for index in range(200)], 10, wall=lambda: now[0])
    hung, waves = submit_at(eta, 0, T0), 8
    for wave in range(waves):
        made = [submit_at(eta, 1 + 9 * wave + i, now[0]) for i in range(9)]
        for record in made:
            now[0] += 10.0
            eta.on_transition(record, record.evolve(State.READY, finished_at=now[0]))
    assert hung.state is State.GENERATING
    # Times from 10 to 90 s, 50 on the average: 127 rows left on ten slots.
    assert eta() == pytest.approx(127 * 50 / 10 + 40, rel=0.2)


def durations(name: str, chance: random.Random) -> float:
    match name:
        case "lognormal":
            return 80.0 * math.exp(0.35 * chance.gauss(0.0, 1.0))
        case "long tail":
            return 80.0 * math.exp(0.6 * chance.gauss(0.0, 1.0))
        case "two modes":
            return chance.gauss(50.0, 5.0) if chance.random() < 0.6 else chance.gauss(130.0, 12.0)
        case _:
            return chance.uniform(40.0, 120.0)


@untraced
@pytest.mark.parametrize("name", ["lognormal", "long tail", "two modes", "uniform"])
@pytest.mark.parametrize(
    ("rows", "slots", "bound"), [(20, 20, 0.3), (40, 20, 0.2), (60, 6, 0.1), (400, 20, 0.08)]
)
def test_the_time_left_of_small_batches_is_right_on_the_average(
    name: str, rows: int, slots: int, bound: float
) -> None:
    """A single wave of strangers cannot be foretold well: nobody knows yet how slow the slowest is."""
    chance = random.Random(7)
    errors = [
        statistics.fmean(found)
        for _ in range(8)
        if (found := eta_errors([max(5.0, durations(name, chance)) for _ in range(rows)], slots))
    ]
    assert len(errors) >= 6
    assert statistics.fmean(errors) < bound


def test_a_hundred_thousand_rows_take_their_share_of_the_slots() -> None:
    spread = fit_distribution(sorted([80.0, 85.0, 90.0, 95.0, 100.0] * 20), [], 80.0)
    assert time_left_s([], [(spread, 100_000)], 100) == pytest.approx(100_000 * 90 / 100, rel=0.03)


def test_an_estimate_of_thousands_in_flight_takes_a_moment() -> None:
    spread = fit_distribution([60.0 + i / 20 for i in range(1000)], [i / 40 for i in range(3000)], 80.0)
    running = [(spread, i / 40) for i in range(3000)]
    began = time.process_time()
    left = time_left_s(running, [(spread, 100_000)], 3000)
    assert time.process_time() - began < 2.0, "some 20 ms, and the loop waits for it"
    assert left == pytest.approx(100_000 * 85 / 3000 + 60, rel=0.15)


def test_many_slots_are_as_few_scaled() -> None:
    spread = fit_distribution([60.0 + i / 20 for i in range(1000)], [], 80.0)
    few = time_left_s([(spread, 10.0)] * 200, [], 200)
    many = time_left_s([(spread, 10.0)] * 2000, [], 2000)
    assert few * 1.01 < many < few * 1.15


def test_nothing_known_is_a_guess_and_survivors_push_it_up() -> None:
    plain = fit_distribution([], [], 80.0)
    assert plain.residual_s(0.0, 0.5) == pytest.approx(80.0, rel=0.1)
    assert fit_distribution([], [150.0] * 20, 80.0).residual_s(0.0, 0.5) > 130.0


@given(
    seen=st.lists(st.floats(0.01, 5000.0), max_size=30),
    ages=st.lists(st.floats(0.0, 90_000.0), max_size=30),
    open_rows=st.integers(0, 2000),
    slots=st.integers(1, 500),
)
@settings(max_examples=60, deadline=None)
def test_whatever_was_seen_the_time_left_is_a_number(
    seen: list[float], ages: list[float], open_rows: int, slots: int
) -> None:
    spread = fit_distribution(sorted(seen), ages, 80.0, sorted(seen[:5]))
    left = time_left_s([(spread, age) for age in ages], [(spread, open_rows)], slots)
    assert math.isfinite(left)
    assert left >= 0.0
    shares = [spread.residual_s(age, share) for age in (0.0, *ages[:3]) for share in (0.99, 0.5, 0.01)]
    assert all(first <= second <= third for first, second, third in zip(*[iter(shares)] * 3, strict=True))
