"""The gates: tables for each rule, and hidden limits on a virtual clock."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from benchmarks.simulate_limit import SETTINGS, simulate
from pipeline.net.retry_after import MAX_RETRY_AFTER_S, parse_retry_after, retry_after_header, retry_after_s
from pipeline.poll.poll_rate import AdaptiveRateLimit
from pipeline.submit.create_limits import AdaptiveConcurrencyLimit

OCT_21_2015 = 1445412480.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:30 -0000", 30.0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),
        ("Wednesday, 21-Oct-15 07:28:30 GMT", 30.0),
        (None, None),
        ("", None),
        ("-3", None),
        ("soon", None),
        ("1.2.3", None),
        ("nan", None),
        ("٣", None),
        ("9" * 100, None),
        ("Wed, 99 Oct 2015 99:28:30 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, now_utc=OCT_21_2015) == seconds


LONGEST_WAIT_S = 240.0
"""Six poll intervals of 10 s, four times as long where the account seems to allow but one generation."""

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "server_now", "seconds"),
    [
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": DATE}, None, 30.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": DATE}, 1.0, 30.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "today"}, OCT_21_2015 - 10.0, 40.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT"}, None, None),
        (
            {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT", "Date": "Wed, 21 Oct 2015 12:28:00 GMT"},
            None,
            0.0,
        ),
        ({"Retry-After": "Thu, 21 Oct 2055 07:28:00 GMT", "Date": DATE}, None, MAX_RETRY_AFTER_S),
        ({"Retry-After": "9" * 60, "Date": DATE}, None, MAX_RETRY_AFTER_S),
        ({"Date": DATE}, None, None),
    ],
)
def test_retry_after_is_reckoned_from_the_answers_own_date(
    headers: dict[str, str], server_now: float | None, seconds: float | None
) -> None:
    """This machine's clock may be hours off: it has no part in it."""
    assert retry_after_s(headers, server_now=server_now) == seconds


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "30"}, "30"),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, "30"),
        ({"Retry-After": "Wed, 21 Oct 2015 07:27:00 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, "0"),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT"}, "Wed, 21 Oct 2015 07:28:30 GMT"),
        ({"Retry-After": "soon", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, "soon"),
    ],
)
def test_a_date_is_turned_into_seconds(headers: dict[str, str], expected: str | None) -> None:
    assert retry_after_header(headers) == expected


@given(st.text(max_size=80), st.text(max_size=80), st.none() | st.floats())
def test_retry_after_survives_anything(value: str, date: str, server_now: float | None) -> None:
    found = retry_after_s({"Retry-After": value, "Date": date}, server_now=server_now)
    assert found is None or 0.0 <= found <= MAX_RETRY_AFTER_S


def gate_at_limit(ceiling: int, limit: int, interval_s: float = 10.0) -> AdaptiveConcurrencyLimit:
    """A gate whose account took `limit` and refused the next."""
    gate = AdaptiveConcurrencyLimit(ceiling, interval_s=interval_s, random=Random(1))
    for i in range(limit):
        assert gate.start_delay_s(0.0, i) == 0.0
        gate.on_started(0.0)
        gate.on_accepted(0.0, i + 1)
    gate.on_started(0.0)
    gate.on_rate_limited(0.0, limit)
    return gate


def test_the_ceiling_is_never_passed() -> None:
    gate = AdaptiveConcurrencyLimit(3)
    assert gate.start_delay_s(0.0, 3) == inf
    gate.on_started(0.0)
    assert gate.start_delay_s(0.0, 2) == inf
    assert gate.start_delay_s(0.0, 1) == 0.0


def test_the_first_creates_start_slowly() -> None:
    gate = AdaptiveConcurrencyLimit(40)
    out = 0
    while gate.start_delay_s(0.0, 0) == 0.0:
        gate.on_started(0.0)
        out += 1
    assert out == 4
    for done in range(out):
        gate.on_accepted(1.0, done + 1)
    again = 0
    while gate.start_delay_s(1.0, out) == 0.0:
        gate.on_started(1.0)
        again += 1
    assert again == 6


def test_a_refusal_is_the_limit_and_a_freed_slot_is_refilled_at_once() -> None:
    gate = gate_at_limit(40, 12)
    assert gate.limit == 12
    assert 0.0 < gate.start_delay_s(0.1, 12) <= 1.0
    assert gate.start_delay_s(0.1, 11) == 0.0


def test_beyond_the_limit_there_is_one_probe_at_a_time() -> None:
    gate = gate_at_limit(40, 12)
    assert gate.start_delay_s(5.0, 12) == 0.0
    gate.on_started(5.0)
    assert gate.start_delay_s(5.0, 12) == inf
    gate.on_create_ended(5.1)
    assert gate.start_delay_s(5.1, 12) == 0.0


def test_refused_probes_come_ever_more_seldom() -> None:
    gate, now, waits = gate_at_limit(40, 12), 0.0, []
    for _ in range(12):
        wait = gate.start_delay_s(now, 12)
        waits.append(wait)
        now += wait
        assert gate.start_delay_s(now, 12) == 0.0
        gate.on_started(now)
        gate.on_rate_limited(now, 12)
    assert waits[:6] == sorted(waits[:6])
    assert 45.0 <= max(waits) <= 60.0


def test_a_burst_of_refusals_is_one_refusal() -> None:
    gate = AdaptiveConcurrencyLimit(40, random=Random(1))
    for i in range(8):
        gate.on_started(0.0)
        gate.on_accepted(0.0, i + 1)
    for _ in range(8):
        gate.on_started(0.0)
    for _ in range(8):
        gate.on_rate_limited(0.5, 8)
    assert gate.outstanding == 0
    assert gate.limit == 8
    assert gate.start_delay_s(0.5, 8) <= 1.0


@pytest.mark.parametrize("in_flight", [0, 5, 12])
def test_retry_after_is_honoured_to_the_instant(in_flight: int) -> None:
    gate = gate_at_limit(40, 12)
    gate.on_started(1.0)
    gate.on_rate_limited(1.0, 12, 33.0)
    assert gate.start_delay_s(1.0, in_flight) == 33.0
    assert gate.start_delay_s(33.9, in_flight) == pytest.approx(0.1)
    assert gate.start_delay_s(34.0, in_flight) == 0.0


def test_with_nothing_in_flight_a_refusal_still_waits() -> None:
    gate = AdaptiveConcurrencyLimit(4, random=Random(1))
    gate.on_started(0.0)
    gate.on_rate_limited(0.0, 0)
    assert gate.limit == 1
    assert 0.0 < gate.start_delay_s(0.0, 0) <= 1.0


@pytest.mark.parametrize("seed", range(5))
def test_refusals_of_any_cause_never_add_up_to_more_than_the_longest_wait(seed: int) -> None:
    """A gateway that refuses every other create by chance seems to limit a rate, which only grew."""
    random, now = Random(seed), 0.0
    limit = AdaptiveConcurrencyLimit(2, random=random)
    for _ in range(500):
        delay_s = limit.start_delay_s(now, 0)
        assert delay_s <= LONGEST_WAIT_S
        now += delay_s
        limit.on_started(now)
        if random.random() < 0.5:
            limit.on_rate_limited(now, 0, 9.0)
        else:
            limit.on_accepted(now, random.choice((1, 2)))


def test_the_limit_grows_again_with_the_account() -> None:
    gate, now = gate_at_limit(40, 12), 0.0
    for level in range(13, 41):
        now += gate.start_delay_s(now, level - 1)
        gate.on_started(now)
        gate.on_accepted(now, level)
        assert gate.limit == level
    assert now < 60.0


def test_every_wait_scales_with_the_interval() -> None:
    slow, fast = gate_at_limit(40, 12, interval_s=10.0), gate_at_limit(40, 12, interval_s=0.5)
    assert fast.start_delay_s(0.0, 12) == pytest.approx(slow.start_delay_s(0.0, 12) / 20.0)


@pytest.mark.parametrize(
    ("setting", "used", "refused"),
    [
        ("12 in flight", 0.93, 0.3),
        ("12 in flight, Retry-After", 0.93, 0.3),
        ("30, then 12 after 120 s", 0.90, 0.35),
        ("25 in flight, 1 a second", 0.85, 0.35),
        ("12, then 30 after 300 s", 0.75, 0.4),
        ("1 in flight", 0.90, 0.8),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_hidden_limit_is_found_and_used(setting: str, used: float, refused: float, seed: int) -> None:
    found = simulate(SETTINGS[setting](), seed=seed)
    assert found["used"] >= used
    assert found["refused_a_job"] <= refused


@pytest.mark.parametrize("seed", range(3))
def test_the_limit_is_found_at_twenty_times_the_speed(seed: int) -> None:
    found = simulate(
        SETTINGS["12 in flight"](), interval_s=0.5, median_s=3.75, latency_s=0.02, notice_s=0.15, seed=seed
    )
    assert found["used"] >= 0.93
    assert found["refused_a_job"] <= 0.3


@pytest.mark.parametrize(
    ("setting", "makespan_s", "refused"),
    [
        ("no limit", 620.0, 0.0),
        ("2 creates a second", 640.0, 0.1),
        ("2 creates a second, Retry-After", 640.0, 0.1),
        ("10 a minute, 10 at once", 1600.0, 0.8),
        ("1 create in 5 s", 3400.0, 0.9),
    ],
)
def test_a_limit_of_the_rate_is_no_limit_in_flight(setting: str, makespan_s: float, refused: float) -> None:
    found = simulate(SETTINGS[setting](), seed=1)
    assert found["makespan_s"] <= makespan_s
    assert found["refused_a_job"] <= refused


class ConcurrencyLimitMachine(RuleBasedStateMachine):
    """Any order of answers: the gate never passes its ceiling, and always opens again."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = AdaptiveConcurrencyLimit(6, random=Random(3))
        self.now = 0.0
        self.in_flight = 0
        self.outstanding = 0
        self.shut_until = 0.0

    @rule(wait_s=st.floats(0.0, 30.0))
    def start(self, wait_s: float) -> None:
        self.now += wait_s
        if self.limit.start_delay_s(self.now, self.in_flight) == 0.0:
            assert self.now >= self.shut_until
            self.limit.on_started(self.now)
            self.outstanding += 1

    @rule(how=st.sampled_from(["accepted", "throttled", "told", "ended"]))
    def answer(self, how: str) -> None:
        if not self.outstanding:
            return
        self.outstanding -= 1
        if how == "accepted":
            self.in_flight += 1
            self.limit.on_accepted(self.now, self.in_flight)
        elif how == "ended":
            self.limit.on_create_ended(self.now)
        else:
            told = 20.0 if how == "told" else None
            self.shut_until = max(self.shut_until, self.now + (told or 0.0))
            self.limit.on_rate_limited(self.now, self.in_flight, told)

    @rule()
    def finish(self) -> None:
        self.in_flight = max(0, self.in_flight - 1)

    @invariant()
    def holds(self) -> None:
        assert self.in_flight + self.outstanding <= 6
        assert 1 <= self.limit.limit <= 6
        assert self.limit.outstanding == self.outstanding

    @invariant()
    def opens_again(self) -> None:
        if self.in_flight + self.outstanding < 6 and self.outstanding == 0:
            wait = self.limit.start_delay_s(self.now, self.in_flight)
            assert wait < inf
            assert self.limit.start_delay_s(self.now + wait + 1e-6, self.in_flight) == 0.0


TestConcurrencyLimitMachine = ConcurrencyLimitMachine.TestCase
TestConcurrencyLimitMachine.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


def test_polls_are_unlimited_until_one_is_rejected() -> None:
    pace = AdaptiveRateLimit()
    assert all(pace.acquire_delay_s(i * 1e-6) == 0.0 for i in range(1000))


def test_rejected_poll_pauses_rate_limit_for_retry_after() -> None:
    pace = AdaptiveRateLimit()
    assert pace.acquire_delay_s(0.0) == 0.0
    pace.on_rate_limited(0.0, 17.0)
    pace.on_rate_limited(0.1, 3.0)
    assert pace.acquire_delay_s(0.1) == pytest.approx(16.9)
    assert pace.acquire_delay_s(17.0) == 0.0


def test_simultaneous_rejections_slow_the_rate_once() -> None:
    once, often = AdaptiveRateLimit(), AdaptiveRateLimit()
    for pace, times in ((once, 1), (often, 30)):
        for i in range(100):
            pace.acquire_delay_s(i * 0.01)
        for _ in range(times):
            pace.on_rate_limited(1.0)
    assert often.gap_s == once.gap_s > 0.0


def test_rate_limit_finds_hidden_rate_and_forgets_it() -> None:
    pace, now, tokens, refused, passed, seen = AdaptiveRateLimit(), 0.0, 5.0, 0, 0, 0.0
    while now < 600.0:
        now += pace.acquire_delay_s(now) + 1e-3
        if pace.acquire_delay_s(now) > 0.0:
            continue
        tokens = min(5.0, tokens + (now - seen) * 5.0)
        seen = now
        if tokens >= 1.0:
            tokens -= 1.0
            passed += 1
            pace.on_success(now)
        else:
            refused += 1
            pace.on_rate_limited(now)
    assert passed > 0.7 * 600.0 * 5.0
    assert refused < 0.12 * passed
    for _ in range(2000):
        pace.on_success(now)
    assert pace.gap_s == 0.0
