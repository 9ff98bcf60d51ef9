"""What is learned of rendering times: bounds on a virtual clock, drift, memory, forecasts."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from math import exp, inf
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulate_night import bytes_per_generation, measure
from benchmarks.simulate_polling import (
    DISTRIBUTIONS,
    fixed_interval,
    learner_with_cache,
    list_scheduling_makespan,
    simulate,
    simulate_fixed_schedule,
)
from pipeline.poll.finish_simulation import time_left_s
from pipeline.poll.learner import DurationLearner
from pipeline.poll.observations import BIN_COUNT, BIN_EDGES_S, Observations, bin_of
from pipeline.poll.poll_times import MAX_INTERVAL, MIN_INTERVAL, delay_urgency, optimal_times
from pipeline.poll.schedule import PollSchedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.poll.survival_estimate import HazardEstimate

untraced = pytest.mark.no_cover
"""Long computations take four times as long under coverage; shorter tests cover the same lines."""

DURATION_KEY = "any"


def durations(name: str, jobs: int, seed: int, factor: float = 1.0) -> list[float]:
    random = Random(seed)
    return [factor * DISTRIBUTIONS[name](random) for _ in range(jobs)]


@untraced
@pytest.mark.parametrize(("name", "product"), [("lognormal", 0.52), ("two modes", 0.50), ("uniform", 0.85)])
@pytest.mark.parametrize("in_flight", [60, 20])
def test_polls_and_delay_are_both_better_than_fixed_interval(
    name: str, product: float, in_flight: int
) -> None:
    shares = []
    for seed in range(4):
        batch = durations(name, 300, seed)
        share = simulate(batch, in_flight, seed=seed).relative_to(
            simulate_fixed_schedule(batch, 60, fixed_interval(10.0))
        )
        assert share.polls <= 0.98
        assert share.delay_s <= 1.1
        shares.append(share)
    assert fmean(share.product for share in shares) <= product - 0.02
    assert fmean(share.delay_s for share in shares) <= 0.96


@untraced
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_all_at_once_is_no_worse_than_the_fixed_clock(name: str) -> None:
    batch = durations(name, 300, 2)
    share = simulate(batch, 300, seed=2).relative_to(
        simulate_fixed_schedule(batch, 300, fixed_interval(10.0))
    )
    assert share.polls <= 1.0
    assert share.delay_s <= 1.5  # no row waits for a slot: only the last end counts
    assert share.product <= 0.95


@untraced
def test_polls_go_where_they_shorten_the_batch() -> None:
    batches = [durations("lognormal", 240, seed) for seed in range(6)]
    costs = [simulate(batch, 40, seed=seed) for seed, batch in enumerate(batches)]
    assert fmean(cost.polls for cost in costs) <= 6.2
    assert fmean(cost.last_delay_s for cost in costs) <= 0.2 * 10.0
    bounds = [list_scheduling_makespan(batch, 40) for batch in batches]
    assert fmean(cost.makespan_s / bound for cost, bound in zip(costs, bounds, strict=True)) <= 1.037


@pytest.mark.parametrize(
    ("waiting", "running", "urgency"),
    [(200, 40, 1.05), (1, 40, 1.05), (0, 40, 0.5), (0, 20, 1.0), (0, 10, 2.0), (0, 1, 8.0), (0, 0, 1.05)],
)
def test_delay_costs_what_it_holds_up(waiting: int, running: int, urgency: float) -> None:
    assert delay_urgency(waiting, running, 40) == urgency


@untraced
def test_every_constant_scales_with_the_interval() -> None:
    batches = [durations("lognormal", 200, seed) for seed in range(4)]
    slow = [simulate(batch, 60, seed=seed) for seed, batch in enumerate(batches)]
    fast = [
        simulate([d / 20.0 for d in batch], 60, seed=seed, interval_s=0.5)
        for seed, batch in enumerate(batches)
    ]
    assert fmean(one.polls for one in fast) == pytest.approx(fmean(one.polls for one in slow), rel=0.05)
    assert fmean(one.delay_s for one in fast) * 20.0 == pytest.approx(
        fmean(one.delay_s for one in slow), rel=0.1
    )


@untraced
@pytest.mark.parametrize("name", ["lognormal", "two modes"])
@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize(("jobs", "in_flight"), [(60, 60), (100, 30), (30, 1)])
def test_duration_cache_off_by_factor_two_costs_little(
    name: str, factor: float, jobs: int, in_flight: int
) -> None:
    shares = []
    for seed in range(2):
        batch = durations(name, jobs, seed, factor)
        ours = simulate(batch, in_flight, seed=seed, learner=learner_with_cache(DISTRIBUTIONS[name], seed))
        shares.append(ours.relative_to(simulate_fixed_schedule(batch, in_flight, fixed_interval(10.0))))
    assert fmean(share.polls for share in shares) <= 1.2
    if jobs > in_flight:
        assert fmean(share.delay_s for share in shares) <= 1.3
    assert fmean(share.product for share in shares) <= 1.3


@untraced
def test_a_change_in_the_middle_of_a_run_costs_little() -> None:
    for factor in (0.5, 2.0):
        batch = durations("lognormal", 150, 1) + durations("lognormal", 150, 2, factor)
        share = simulate(batch, 50, seed=1).relative_to(
            simulate_fixed_schedule(batch, 50, fixed_interval(10.0))
        )
        assert share.polls <= 1.0
        assert share.delay_s <= 1.2


@untraced
def test_correct_duration_cache_helps_from_the_start() -> None:
    cold, warm = [], []
    for seed in range(4):
        batch = durations("lognormal", 60, seed)
        cold.append(simulate(batch, 20, seed=seed).product)
        warm.append(
            simulate(
                batch, 20, seed=seed, learner=learner_with_cache(DISTRIBUTIONS["lognormal"], seed)
            ).product
        )
    assert fmean(warm) < 0.95 * fmean(cold)


def make_learner(seconds: float, ends: int = 80, interval_s: float = 10.0) -> DurationLearner:
    learner, random = DurationLearner(interval_s), Random(1)
    for _ in range(ends):
        end = seconds * exp(random.gauss(0.0, 0.05))
        learner.on_still_running(DURATION_KEY, 0.0, end - 1.0)
        learner.on_finished(DURATION_KEY, end - 1.0, end)
    return learner


def median_left_s(learner: DurationLearner, duration_key: str, age_s: float) -> float | None:
    """Return the time that half of those running at `age_s` outlast; None while nothing is known."""
    known = learner.estimate_for(duration_key)
    return None if known is None else known.residual_s(age_s, 0.5)


def test_what_remains_is_none_at_first_and_then_about_right() -> None:
    assert median_left_s(DurationLearner(), DURATION_KEY, 0.0) is None
    learner = make_learner(100.0)
    assert median_left_s(learner, "another", 0.0) is None
    assert median_left_s(learner, DURATION_KEY, 0.0) == pytest.approx(100.0, rel=0.1)
    assert median_left_s(learner, DURATION_KEY, 50.0) == pytest.approx(50.0, rel=0.15)
    late = median_left_s(learner, DURATION_KEY, 5000.0)
    assert late is not None
    assert 0.0 < late < 1000.0


def test_duration_cache_survives_json() -> None:
    learner = make_learner(100.0)
    data = json.loads(json.dumps(learner.dump()))
    heir = DurationLearner()
    heir.restore(data)
    assert median_left_s(heir, DURATION_KEY, 30.0) == pytest.approx(
        median_left_s(learner, DURATION_KEY, 30.0), rel=0.1
    )
    assert len(json.dumps(data)) < 20_000


def test_long_cache_counts_for_a_hundred_observations() -> None:
    evidence = Observations()
    for _ in range(500):
        evidence.add_finished(90.0, 100.0, 1e9)
    assert Observations.from_dump(evidence.dump(), 100.0).weighted_completions() == pytest.approx(
        100.0, rel=1e-3
    )
    assert Observations.from_dump(evidence.dump(), 900.0).weighted_completions() == pytest.approx(
        500.0, rel=1e-3
    )


def test_running_generations_are_cached_as_censored() -> None:
    learner = DurationLearner()
    queue = PollSchedule(learner, interval_s=10.0, random=Random(1))
    for i in range(50):
        queue.add(str(i), DURATION_KEY, now=0.0)
    now = 0.0
    while now < 60.0:
        now = queue.next_due() or inf
        key = queue.pop_due(now)
        if key is not None:
            queue.still_running(key, now=now)
    queue.finished(next(iter(queue._entries)), now=now)
    remaining = median_left_s(learner, DURATION_KEY, 0.0)
    assert remaining is not None
    assert remaining > now


GOOD = make_learner(100.0).dump()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"version": 99},
        {"version": 1, "grid": [1, 2, 3], "kinds": {}},
        {**GOOD, "kinds": []},
        {**GOOD, "kinds": {DURATION_KEY: 3}},
        {**GOOD, "kinds": {DURATION_KEY: {"ends": {}, "enters": {}}}},
        {**GOOD, "kinds": {DURATION_KEY: {"ends": {"5": -1.0}, "enters": {}}}},
        {**GOOD, "kinds": {DURATION_KEY: {"ends": {"x": 1.0}, "enters": {}}}},
        {**GOOD, "kinds": {DURATION_KEY: {"ends": {"5": None}, "enters": {}}}},
        {**GOOD, "kinds": {DURATION_KEY: {"ends": {"5": 1.0}, "enters": {"3": -5.0}}}},
        {**GOOD, "kinds": {DURATION_KEY: {"ends": {"99999": 1.0}, "enters": {}}}},
        {**GOOD, "kinds": {DURATION_KEY: {"ends": {"5": float("nan")}, "enters": {}}}},
        {**GOOD, "kinds": {DURATION_KEY: {"ends": {"5": 1e400}, "enters": {}}}},
    ],
)
def test_bad_duration_cache_is_ignored(data: dict[str, Any]) -> None:
    learner = DurationLearner()
    learner.restore(data)
    assert median_left_s(learner, DURATION_KEY, 0.0) is None


values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3))
junk_values = st.recursive(
    values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
)
counts = st.dictionaries(st.integers(-2, BIN_COUNT + 2).map(str), values, max_size=6)


@given(junk_values | st.fixed_dictionaries({"ends": counts, "enters": counts}))
@settings(max_examples=60, deadline=None)
def test_any_duration_cache_leaves_valid_intervals(kind: Any) -> None:
    learner = DurationLearner()
    learner.restore({**GOOD, "kinds": {DURATION_KEY: kind}})
    at = learner.poll_times(DURATION_KEY).next_poll_age(7.0)
    assert 7.0 + MIN_INTERVAL * 10.0 * 0.999 <= at <= 7.0 + MAX_INTERVAL * 10.0


polls = st.lists(
    st.tuples(st.floats(0.0, 2000.0), st.floats(0.0, 300.0), st.booleans()), min_size=1, max_size=80
)


@given(polls, st.floats(0.01, 60.0))
@settings(max_examples=50, deadline=None)
def test_whatever_is_seen_a_plan_keeps_its_bounds_and_its_order(
    seen: list[tuple[float, float, bool]], interval_s: float
) -> None:
    learner = DurationLearner(interval_s)
    for from_s, more_s, ended in seen:
        (learner.on_finished if ended else learner.on_still_running)(DURATION_KEY, from_s, from_s + more_s)
    polls = learner.poll_times(DURATION_KEY)
    ages = [0.0, 0.3, *(interval_s * step / 3.0 for step in range(60)), 1e4, 1e6]
    nexts = [polls.next_poll_age(age) for age in sorted(ages)]
    for age, at in zip(sorted(ages), nexts, strict=True):
        assert age + MIN_INTERVAL * interval_s * 0.999 <= at <= age + MAX_INTERVAL * interval_s * 1.001
    assert all(later >= sooner - 1e-6 for sooner, later in pairwise(nexts))
    remaining = median_left_s(learner, DURATION_KEY, 5.0)
    assert remaining is None or 0.0 <= remaining < inf


@given(st.floats(0.0, 1e6))
def test_an_age_is_in_its_bin(age_s: float) -> None:
    b = bin_of(age_s)
    assert 0 <= b < BIN_COUNT
    assert BIN_EDGES_S[b] <= age_s * (1 + 1e-9)
    assert b == BIN_COUNT - 1 or age_s <= BIN_EDGES_S[b + 1] * (1 + 1e-9)


@given(st.lists(st.tuples(st.floats(0.0, 500.0), st.floats(0.001, 50.0)), min_size=1, max_size=30))
def test_an_end_counts_for_one_and_risk_is_never_negative(ends: list[tuple[float, float]]) -> None:
    evidence = Observations()
    for from_s, more_s in ends:
        evidence.add_finished(from_s, from_s + more_s, 1e9)
    assert evidence.weighted_completions() == pytest.approx(len(ends))
    total = 0.0
    for step in evidence.at_risk_deltas:
        total += step
        assert total > -1e-6
    assert total == pytest.approx(0.0, abs=1e-6)


def test_counts_never_overflow() -> None:
    evidence = Observations()
    for _ in range(3000):
        evidence.add_finished(9.0, 10.0, 20.0)
    assert evidence.weighted_completions() == pytest.approx(20.0 / 0.693, rel=0.05)


def test_narrow_distribution_takes_few_polls() -> None:
    learner = make_learner(100.0, ends=300)
    known = learner.estimate_for(DURATION_KEY)
    assert known is not None
    age, times = 0.0, 0
    polls = optimal_times(known, 10.0)
    while age < 100.0:
        age, times = polls.next_poll_age(age), times + 1
    assert times <= 6


class Forecast:
    """An estimate for polls, as the forecast asks it."""

    def __init__(self, known: HazardEstimate) -> None:
        self.mean_s, self._known = known.mean_s, known

    def residual_at(self, age_s: float) -> Callable[[float], float]:
        return partial(self._known.residual_s, age_s)


def forecast_errors(name: str, jobs: int, in_flight: int, seed: int) -> list[float]:
    """Return the error of the forecast total against the real one, after each finish from a third on."""
    batch, now, started = durations(name, jobs, seed), 0.0, 0
    learner = DurationLearner()
    queue = PollSchedule(learner, interval_s=10.0, random=Random(seed))
    born: dict[str, float] = {}
    forecasts: list[tuple[float, float]] = []
    while started < jobs or len(queue):
        while started < jobs and len(queue) < in_flight:
            born[str(started)] = now
            queue.add(str(started), DURATION_KEY, now=now)
            started += 1
        now = max(now, queue.next_due() or now)
        key = queue.pop_due(now)
        if key is None:
            continue
        if now < born[key] + batch[int(key)]:
            queue.still_running(key, now=now)
            continue
        queue.finished(key, now=now)
        if (jobs - started + len(queue)) % 5 == 0 and len(queue):
            known = learner.estimate_for(DURATION_KEY)
            assert known is not None
            spread = Forecast(known)
            running = [(spread, now - at) for key, at in born.items() if key in queue]
            left = time_left_s(running, [(spread, jobs - started)], in_flight)
            forecasts.append((now, left))
    return [abs(at + left - now) / now for at, left in forecasts if at > now / 3.0]


@untraced
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_forecast_is_right_within_a_fifth_from_a_third_on(name: str) -> None:
    errors = forecast_errors(name, 160, 30, 1)
    assert len(errors) > 10
    assert max(errors) <= 0.2


def test_a_forecast_of_many_is_the_forecast_of_few_scaled() -> None:
    known = make_learner(100.0).estimate_for(DURATION_KEY)
    assert known is not None
    few = time_left_s([], [(Forecast(known), 500)], 10)
    many = time_left_s([], [(Forecast(known), 500_000)], 10_000)
    assert many == pytest.approx(few, rel=0.05)


def test_a_forecast_needs_some_knowledge() -> None:
    assert DurationLearner().estimate_for(DURATION_KEY) is None
    known = make_learner(100.0).estimate_for(DURATION_KEY)
    assert known is not None
    spread = Forecast(known)
    assert time_left_s([], [(spread, 0)], 4) == 0.0
    assert 80.0 < time_left_s([(spread, 0.0)], [(spread, 3)], 4) < 150.0


@untraced
def test_a_night_with_outages_ends_with_everything_found() -> None:
    found = measure(2_000)
    assert found["looks_a_job"] < 10.0
    assert found["refused_creates_a_job"] < 0.3
    assert found["delay_s"] < 8.0


@untraced
def test_a_tracked_generation_is_small() -> None:
    assert bytes_per_generation(10_000) < 500.0
