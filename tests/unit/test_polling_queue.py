"""The poll queue: every tracked generation comes back, never too early, never too late."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.poll.duration_key import kind_of
from pipeline.poll.intervals import CAP, FLOOR
from pipeline.poll.learner import DurationLearner
from pipeline.poll.schedule import JITTER, SLACK, PollQueue

INTERVAL_S = 10.0
SLOWEST_S = (CAP + JITTER + SLACK) * INTERVAL_S
SOONEST_S = (FLOOR - JITTER * FLOOR) * INTERVAL_S


def a_queue(interval_s: float = INTERVAL_S, seed: int = 1) -> PollQueue:
    return PollQueue(DurationLearner(interval_s), interval_s=interval_s, random=Random(seed))


class Tracking(RuleBasedStateMachine):
    """Any order of calls, against a plain model of what is waiting since when."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = a_queue()
        self.now = 0.0
        self.serial = 0
        self.waiting: dict[str, float] = {}
        self.looking: set[str] = set()

    @rule(kind=st.sampled_from("ab"), count=st.integers(1, 20))
    def add(self, kind: str, count: int) -> None:
        for _ in range(count):
            self.serial += 1
            self.queue.add(str(self.serial), kind, now=self.now)
            self.waiting[str(self.serial)] = self.now

    @rule(wait_s=st.floats(0.0, 40.0))
    def passes(self, wait_s: float) -> None:
        due = self.queue.next_due()
        self.now += wait_s if due is None else min(wait_s, max(0.0, due - self.now))

    @rule(ending=st.sampled_from(["not_yet", "finished", "failed", "drop"]))
    def look(self, ending: str) -> None:
        due = self.queue.next_due()
        if due is None:
            return
        self.now = max(self.now, due)
        key = self.queue.pop_due(self.now)
        if key is None:
            assert (self.queue.next_due() or 0.0) > due
            return
        since = self.waiting.pop(key)
        assert self.now - since <= SLOWEST_S
        self.settle(key, ending)

    def settle(self, key: str, ending: str) -> None:
        if ending == "finished":
            self.queue.finished(key, now=self.now)
        elif ending == "drop":
            self.queue.drop(key, now=self.now)
        else:
            if ending == "not_yet":
                self.queue.not_yet(key, now=self.now)
            else:
                self.queue.look_failed(key, now=self.now)
            self.waiting[key] = self.now

    @rule()
    def drop_one_that_waits(self) -> None:
        if self.waiting:
            key = next(iter(self.waiting))
            del self.waiting[key]
            self.queue.drop(key, now=self.now)

    @invariant()
    def none_is_lost(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert (self.queue.next_due() is not None) == bool(self.waiting)


TestTracking = Tracking.TestCase
TestTracking.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@given(st.floats(0.05, 100.0), st.lists(st.floats(0.001, 30.0), min_size=1, max_size=40), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_looks_come_neither_too_early_nor_too_late(interval_s: float, ends: list[float], seed: int) -> None:
    queue = a_queue(interval_s, seed)
    now, scale = 0.0, interval_s / INTERVAL_S
    for i, end in enumerate(ends):
        key = str(i)
        queue.add(key, "any", now=now)
        born = last = now
        while key in queue:
            now = max(now, queue.next_due() or 0.0)
            if queue.pop_due(now) is None:
                continue
            assert now - last <= SLOWEST_S * scale * (1 + 1e-9)
            assert last == born or now - last >= SOONEST_S * scale * (1 - 1e-9)
            last = now
            if now - born < end * interval_s:
                queue.not_yet(key, now=now)
            else:
                queue.finished(key, now=now)


def test_what_is_being_looked_at_does_not_come_again() -> None:
    queue = a_queue()
    queue.add("one", "any", now=0.0)
    due = queue.next_due()
    assert due is not None
    assert queue.pop_due(due - 0.001) is None
    assert queue.pop_due(due) == "one"
    assert queue.next_due() is None
    assert queue.pop_due(due + 1e6) is None
    assert len(queue) == 1
    queue.not_yet("one", now=due)
    assert queue.next_due() is not None


def test_what_is_being_looked_at_does_not_come_back_when_the_heap_is_cleaned() -> None:
    queue = a_queue()
    queue.add("one", "any", now=0.0)
    assert queue.pop_due(queue.next_due() or 0.0) == "one"
    for i in range(500):
        queue.add(str(i), "any", now=20.0)
        queue.drop(str(i), now=20.0)
    assert queue.next_due() is None
    assert queue.pop_due(1e6) is None


def test_without_knowledge_the_clock_is_the_interval() -> None:
    queue = a_queue(interval_s=3.0)
    for i in range(8):
        queue.add(str(i), "any", now=0.0)
        due = queue.next_due()
        assert due is not None
        assert due <= 3.0 * (1 + JITTER)


def test_equal_ages_do_not_look_at_the_same_instant() -> None:
    queue = a_queue()
    for i in range(100):
        queue.add(str(i), "any", now=0.0)
    instants = set()
    while (due := queue.next_due()) is not None:
        key = queue.pop_due(due)
        assert key is not None
        instants.add(round(due, 3))
        queue.drop(key, now=due)
    assert len(instants) > 90
    assert max(instants) - min(instants) > JITTER * INTERVAL_S


def test_after_a_restart_overdue_looks_are_spread_over_one_interval() -> None:
    queue = a_queue()
    for i in range(1000):
        queue.add(str(i), "any", now=50.0, age_s=300.0)
    tenths = [0] * 10
    while (due := queue.next_due()) is not None:
        assert 50.0 <= due <= 60.0
        tenths[min(int(due - 50.0), 9)] += 1
        key = queue.pop_due(due)
        assert key is not None
        assert queue.age_s(key, due) == pytest.approx(250.0 + due)
        queue.drop(key, now=due)
    assert min(tenths) > 60


def test_what_is_not_known_after_a_restart_teaches_nothing() -> None:
    learner = DurationLearner(INTERVAL_S)
    queue = PollQueue(learner, interval_s=INTERVAL_S, random=Random(1))
    queue.add("old", "any", now=0.0, age_s=3000.0)
    assert queue.pop_due(20.0) == "old"
    queue.finished("old", now=20.0)
    assert learner.remaining_s("any", 0.0) is None


def test_a_look_that_fails_comes_again_soon_and_backs_off() -> None:
    queue = a_queue()
    queue.add("one", "any", now=0.0)
    now, waits = 20.0, []
    assert queue.pop_due(now) == "one"
    for _ in range(12):
        queue.look_failed("one", now=now)
        due = queue.next_due()
        assert due is not None
        waits.append(due - now)
        now = due
        assert queue.pop_due(now) == "one"
    assert waits[0] <= 0.1 * INTERVAL_S
    assert waits[0] < waits[3] < waits[8]
    assert all(wait <= INTERVAL_S for wait in waits)
    queue.not_yet("one", now=now)
    now = queue.next_due() or 0.0
    assert queue.pop_due(now) == "one"
    queue.look_failed("one", now=now)
    assert (queue.next_due() or 0.0) - now <= 0.1 * INTERVAL_S


def test_a_failed_look_waits_as_long_as_it_is_told() -> None:
    queue = a_queue()
    queue.add("one", "any", now=0.0)
    assert queue.pop_due(20.0) == "one"
    queue.look_failed("one", now=20.0, retry_after_s=77.0)
    assert queue.next_due() == 97.0


def test_a_key_is_tracked_once() -> None:
    queue = a_queue()
    queue.add("one", "any", now=0.0)
    with pytest.raises(ValueError, match="one is tracked"):
        queue.add("one", "any", now=1.0)
    queue.drop("nobody", now=1.0)
    assert queue.in_flight(5.0) == [("any", 5.0)]


def test_the_heap_does_not_grow_with_what_was_dropped() -> None:
    queue = a_queue()
    for i in range(5000):
        queue.add(str(i), "any", now=float(i))
        queue.drop(str(i), now=float(i))
    assert len(queue._heap) <= 200


def test_a_newer_plan_brings_waiting_looks_forward() -> None:
    learner = DurationLearner(INTERVAL_S)
    for _ in range(60):
        learner.survived("any", 0.0, 198.0)
        learner.ended("any", 198.0, 200.0)
    queue = PollQueue(learner, interval_s=INTERVAL_S, random=Random(1))
    for i in range(40):
        queue.add(str(i), "any", now=0.0)
    before = sum(entry.due for entry in queue._entries.values())
    for _ in range(20):
        learner.ended("any", 0.0, 12.0)
    queue.add("early", "any", now=0.0)
    queue.finished("early", now=12.0)
    after = sum(entry.due for entry in queue._entries.values())
    assert before > 40 * 30.0
    assert after < 0.6 * before


def test_a_newer_plan_puts_due_looks_off() -> None:
    learner = DurationLearner(INTERVAL_S)
    queue = PollQueue(learner, interval_s=INTERVAL_S, random=Random(1))
    queue.add("one", "any", now=0.0)
    due = queue.next_due() or 0.0
    for _ in range(60):
        learner.survived("any", 0.0, 198.0)
        learner.ended("any", 198.0, 200.0)
    assert queue.pop_due(due) is None
    later = queue.next_due() or 0.0
    assert later > due + 20.0
    assert queue.pop_due(later) == "one"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"resolution": "1080p", "duration": 8}, "m|1080p|8"),
        ({"resolution": "1080P", "duration": "8", "prompt": "x"}, "m|1080p|8"),
        ({}, "m||"),
        ({"duration": None}, "m||"),
        ({"duration": 4, "generate_audio": False}, "m||4|generate_audio=false"),
        ({"provider": "FAL"}, "m|||provider=fal"),
    ],
)
def test_a_kind_is_what_changes_the_rendering_time(body: dict[str, Any], kind: str) -> None:
    assert kind_of("m", body) == kind
