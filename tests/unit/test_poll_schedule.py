"""The poll queue: every tracked generation comes back, never too early, never too late."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.poll.duration_key import duration_key
from pipeline.poll.learner import DurationLearner
from pipeline.poll.poll_times import MAX_INTERVAL, MIN_INTERVAL
from pipeline.poll.schedule import DEFER_TOLERANCE, JITTER, PollSchedule

INTERVAL_S = 10.0
MAX_GAP_S = (MAX_INTERVAL + JITTER + DEFER_TOLERANCE) * INTERVAL_S
MIN_GAP_S = (MIN_INTERVAL - JITTER * MIN_INTERVAL) * INTERVAL_S


def make_schedule(interval_s: float = INTERVAL_S, seed: int = 1) -> PollSchedule:
    return PollSchedule(DurationLearner(interval_s), interval_s=interval_s, random=Random(seed))


class ScheduleMachine(RuleBasedStateMachine):
    """Any order of calls, against a plain model of what is waiting since when."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = make_schedule()
        self.now = 0.0
        self.serial = 0
        self.waiting: dict[str, float] = {}
        self.polling: set[str] = set()

    @rule(kind=st.sampled_from("ab"), count=st.integers(1, 20))
    def add(self, kind: str, count: int) -> None:
        for _ in range(count):
            self.serial += 1
            self.queue.add(str(self.serial), kind, now=self.now)
            self.waiting[str(self.serial)] = self.now

    @rule(wait_s=st.floats(0.0, 40.0))
    def advance(self, wait_s: float) -> None:
        due = self.queue.next_due()
        self.now += wait_s if due is None else min(wait_s, max(0.0, due - self.now))

    @rule(ending=st.sampled_from(["not_yet", "finished", "failed", "drop"]))
    def poll(self, ending: str) -> None:
        due = self.queue.next_due()
        if due is None:
            return
        self.now = max(self.now, due)
        key = self.queue.pop_due(self.now)
        if key is None:
            assert (self.queue.next_due() or 0.0) > due
            return
        since = self.waiting.pop(key)
        assert self.now - since <= MAX_GAP_S
        self.apply(key, ending)

    def apply(self, key: str, ending: str) -> None:
        if ending == "finished":
            self.queue.finished(key, now=self.now)
        elif ending == "drop":
            self.queue.drop(key, now=self.now)
        else:
            if ending == "not_yet":
                self.queue.still_running(key, now=self.now)
            else:
                self.queue.poll_again(key, now=self.now)
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


TestScheduleMachine = ScheduleMachine.TestCase
TestScheduleMachine.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@given(st.floats(0.05, 100.0), st.lists(st.floats(0.001, 30.0), min_size=1, max_size=40), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_polls_come_neither_too_early_nor_too_late(interval_s: float, ends: list[float], seed: int) -> None:
    queue = make_schedule(interval_s, seed)
    now, scale = 0.0, interval_s / INTERVAL_S
    for i, end in enumerate(ends):
        key = str(i)
        queue.add(key, "any", now=now)
        born = last = now
        while key in queue:
            now = max(now, queue.next_due() or 0.0)
            if queue.pop_due(now) is None:
                continue
            assert now - last <= MAX_GAP_S * scale * (1 + 1e-9)
            assert last == born or now - last >= MIN_GAP_S * scale * (1 - 1e-9)
            last = now
            if now - born < end * interval_s:
                queue.still_running(key, now=now)
            else:
                queue.finished(key, now=now)


def test_generation_being_polled_is_not_due_again() -> None:
    queue = make_schedule()
    queue.add("one", "any", now=0.0)
    due = queue.next_due()
    assert due is not None
    assert queue.pop_due(due - 0.001) is None
    assert queue.pop_due(due) == "one"
    assert queue.next_due() is None
    assert queue.pop_due(due + 1e6) is None
    assert len(queue) == 1
    queue.still_running("one", now=due)
    assert queue.next_due() is not None


def test_generation_being_polled_stays_out_when_heap_is_cleaned() -> None:
    queue = make_schedule()
    queue.add("one", "any", now=0.0)
    assert queue.pop_due(queue.next_due() or 0.0) == "one"
    for i in range(500):
        queue.add(str(i), "any", now=20.0)
        queue.drop(str(i), now=20.0)
    assert queue.next_due() is None
    assert queue.pop_due(1e6) is None


def test_without_knowledge_the_clock_is_the_interval() -> None:
    queue = make_schedule(interval_s=3.0)
    for i in range(8):
        queue.add(str(i), "any", now=0.0)
        due = queue.next_due()
        assert due is not None
        assert due <= 3.0 * (1 + JITTER)


def test_equal_ages_are_not_polled_at_the_same_instant() -> None:
    queue = make_schedule()
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


def test_overdue_polls_after_restart_are_spread_over_one_interval() -> None:
    queue = make_schedule()
    for i in range(1000):
        queue.add(str(i), "any", now=50.0, age_s=300.0)
    tenths = [0] * 10
    while (due := queue.next_due()) is not None:
        assert 50.0 <= due <= 60.0
        tenths[min(int(due - 50.0), 9)] += 1
        key = queue.pop_due(due)
        assert key is not None
        queue.drop(key, now=due)
    assert min(tenths) > 60


def test_what_is_not_known_after_a_restart_teaches_nothing() -> None:
    learner = DurationLearner(INTERVAL_S)
    queue = PollSchedule(learner, interval_s=INTERVAL_S, random=Random(1))
    queue.add("old", "any", now=0.0, age_s=3000.0)
    assert queue.pop_due(20.0) == "old"
    queue.finished("old", now=20.0)
    assert learner.estimate_for("any") is None


def test_failed_poll_is_retried_with_backoff() -> None:
    queue = make_schedule()
    queue.add("one", "any", now=0.0)
    now, waits = 20.0, []
    assert queue.pop_due(now) == "one"
    for _ in range(12):
        queue.poll_again("one", now=now)
        due = queue.next_due()
        assert due is not None
        waits.append(due - now)
        now = due
        assert queue.pop_due(now) == "one"
    assert waits[0] <= 0.1 * INTERVAL_S
    assert waits[0] < waits[3] < waits[8]
    assert all(wait <= INTERVAL_S for wait in waits)
    queue.still_running("one", now=now)
    now = queue.next_due() or 0.0
    assert queue.pop_due(now) == "one"
    queue.poll_again("one", now=now)
    assert (queue.next_due() or 0.0) - now <= 0.1 * INTERVAL_S


def test_failed_poll_honours_retry_after() -> None:
    queue = make_schedule()
    queue.add("one", "any", now=0.0)
    assert queue.pop_due(20.0) == "one"
    queue.poll_again("one", now=20.0, retry_after_s=77.0)
    assert queue.next_due() == 97.0


def test_a_key_is_tracked_once() -> None:
    queue = make_schedule()
    queue.add("one", "any", now=0.0)
    with pytest.raises(ValueError, match="one is tracked"):
        queue.add("one", "any", now=1.0)
    queue.drop("nobody", now=1.0)
    assert "one" in queue
    assert len(queue) == 1


def test_the_heap_does_not_grow_with_what_was_dropped() -> None:
    queue = make_schedule()
    for i in range(5000):
        queue.add(str(i), "any", now=float(i))
        queue.drop(str(i), now=float(i))
    assert len(queue._heap) <= 200


def test_new_intervals_bring_waiting_polls_forward() -> None:
    learner = DurationLearner(INTERVAL_S)
    for _ in range(60):
        learner.on_still_running("any", 0.0, 198.0)
        learner.on_finished("any", 198.0, 200.0)
    queue = PollSchedule(learner, interval_s=INTERVAL_S, random=Random(1))
    for i in range(40):
        queue.add(str(i), "any", now=0.0)
    before = sum(entry.due_at for entry in queue._entries.values())
    for _ in range(20):
        learner.on_finished("any", 0.0, 12.0)
    queue.add("early", "any", now=0.0)
    queue.finished("early", now=12.0)
    after = sum(entry.due_at for entry in queue._entries.values())
    assert before > 40 * 30.0
    assert after < 0.6 * before


def test_new_intervals_postpone_due_polls() -> None:
    learner = DurationLearner(INTERVAL_S)
    queue = PollSchedule(learner, interval_s=INTERVAL_S, random=Random(1))
    queue.add("one", "any", now=0.0)
    due = queue.next_due() or 0.0
    for _ in range(60):
        learner.on_still_running("any", 0.0, 198.0)
        learner.on_finished("any", 198.0, 200.0)
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
    assert duration_key("m", body) == kind
