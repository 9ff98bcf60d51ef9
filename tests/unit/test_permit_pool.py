"""The account lends permits: never more is in flight than it allows, whoever dies whenever."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cluster.limits import (
    PermitOutcome,
    PermitPool,
    PermitResult,
    RateLimitPool,
    RateShare,
    RemoteConcurrencyLimit,
    RemoteRateLimit,
)
from pipeline.poll.poll_rate import AdaptiveRateLimit
from pipeline.submit.create_limits import AdaptiveConcurrencyLimit

if TYPE_CHECKING:
    from collections.abc import Sequence

ACCEPTED = PermitResult(PermitOutcome.ACCEPTED)


def make_permit_pool(ceiling: int, orphans: Sequence[str] = ()) -> PermitPool:
    return PermitPool(AdaptiveConcurrencyLimit(ceiling, interval_s=1.0, random=Random(1)), orphans)


def test_a_slot_is_taken_from_the_grant_to_the_report() -> None:
    made = make_permit_pool(3)
    assert made.grant("a", 0.0, 5) == 3
    assert made.grant("b", 0.0, 1) == 0
    made.update_worker("a", 1.0, 3, [ACCEPTED] * 3)
    assert made.grant("b", 1.0, 1) == 0
    made.update_worker("a", 2.0, 1, [])
    assert made.grant("b", 2.0, 5) == 2


def test_unused_permits_are_returned() -> None:
    made = make_permit_pool(2)
    gate = RemoteConcurrencyLimit()
    gate.add_permits(made.grant("a", 0.0, 2))
    assert gate.start_delay_s(0.0, 0) == 0.0
    gate.on_started(0.0)
    gate.return_permits(1)
    assert gate.start_delay_s(0.0, 0) == float("inf")
    made.update_worker("a", 0.1, 0, gate.take_results())
    assert made.grant("b", 0.1, 2) == 1


def test_slots_of_dead_worker_are_released_with_their_rows() -> None:
    made = make_permit_pool(4)
    made.grant("a", 0.0, 4)
    made.update_worker("a", 1.0, 3, [ACCEPTED] * 3)
    made.remove_worker("a", 2.0, ["x", "y", "z"])
    assert made.permits == 0
    assert made.grant("b", 2.0, 4) == 1
    made.assign("b", ["x", "y"])
    assert made.in_flight == 3
    made.update_worker("b", 3.0, 0, [ACCEPTED])
    assert made.in_flight == 1
    made.assign("b", ["z"])
    made.update_worker("b", 4.0, 0, [])
    assert made.in_flight == 0


def test_what_was_in_flight_before_counts_from_the_beginning() -> None:
    assert make_permit_pool(2, ["x", "y"]).grant("a", 0.0, 1) == 0
    assert make_permit_pool(2, ["x"]).grant("a", 0.0, 2) == 1


def test_one_worker_rejection_slows_all() -> None:
    made = make_permit_pool(50)
    granted = made.grant("a", 0.0, 50)
    assert 0 < granted < 50
    made.update_worker(
        "a",
        1.0,
        0,
        [
            PermitResult(PermitOutcome.RATE_LIMITED, 30.0),
            *[PermitResult(PermitOutcome.RATE_LIMITED)] * (granted - 1),
        ],
    )
    assert made.grant("b", 1.0, 1) == 0
    assert made.grant("b", 30.9, 1) == 0
    assert made.grant("b", 31.5, 1) == 1


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["ask", "send", "end", "die", "take"])), max_size=80
)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6), STEPS)
def test_never_more_in_flight_than_the_ceiling(ceiling: int, steps: list[tuple[int, str]]) -> None:
    """The vendor's count, which includes what a dead worker sent just before it died."""
    made = make_permit_pool(ceiling)
    permits, flying, orphans = [0] * 3, [0] * 3, 0
    names = ["a", "b", "c"]
    for now, (who, what) in enumerate(steps):
        if what == "ask":
            permits[who] += made.grant(names[who], float(now), 2)
        elif what == "send" and permits[who]:
            permits[who] -= 1
            flying[who] += 1
            made.update_worker(names[who], float(now), flying[who], [ACCEPTED])
        elif what == "end" and flying[who]:
            flying[who] -= 1
            made.update_worker(names[who], float(now), flying[who], [])
        elif what == "die":
            sent = flying[who] + permits[who]  # each of its permits was used, unheard
            made.remove_worker(names[who], float(now), [f"{now}.{n}" for n in range(sent)])
            orphans += sent
            permits[who] = flying[who] = 0
        elif what == "take" and orphans:
            key = min(made._orphans)
            made.assign(names[who], [key])
            orphans -= 1
            flying[who] += 1
        assert sum(flying) + orphans + sum(permits) <= ceiling
        assert made.in_flight == sum(flying) + orphans


def test_polls_are_not_limited_without_rejection() -> None:
    account = RateLimitPool(AdaptiveRateLimit(interval_s=10.0))
    worker = RemoteRateLimit(interval_s=10.0)
    for _ in range(50):
        assert worker.acquire_delay_s(1.0) == 0.0
        worker.on_success(1.0)
    worker.set_share(2.0, account.update_worker("a", 2.0, worker.take_poll_stats(50)))
    assert not worker.limited
    assert worker.acquire_delay_s(2.0) == 0.0


def test_a_refusal_closes_at_once_and_is_told() -> None:
    worker = RemoteRateLimit(interval_s=10.0)
    assert worker.acquire_delay_s(0.0) == 0.0
    worker.on_rate_limited(0.0, 7.0)
    assert worker.limited
    assert worker.acquire_delay_s(1.0) == 6.0
    told = worker.take_poll_stats(3)
    assert (told.tracked, told.calls, told.answered, told.refused, told.retry_after_s) == (3, 1, 0, 1, 7.0)
    assert worker.take_poll_stats(3).refused == 0


def test_a_refusal_of_one_closes_for_all() -> None:
    account = RateLimitPool(AdaptiveRateLimit(interval_s=10.0))
    one, other = RemoteRateLimit(interval_s=10.0), RemoteRateLimit(interval_s=10.0)
    one.acquire_delay_s(0.0)
    one.on_rate_limited(0.0, 5.0)
    account.update_worker("one", 0.0, one.take_poll_stats(1))
    other.set_share(1.0, account.update_worker("other", 1.0, other.take_poll_stats(1)))
    assert other.acquire_delay_s(1.0) == 4.0


def test_poll_rate_is_shared_in_proportion_to_tracked_generations() -> None:
    pace = AdaptiveRateLimit(interval_s=10.0)
    account = RateLimitPool(pace)
    account.update_worker("a", 0.0, RemoteRateLimit(interval_s=10.0).take_poll_stats(30))
    account.update_worker("b", 0.0, RemoteRateLimit(interval_s=10.0).take_poll_stats(10))
    pace.record_calls(0.0)
    pace.record_calls(1.0)
    pace.on_rate_limited(1.0)
    a = account.update_worker("a", 9.0, RemoteRateLimit(interval_s=10.0).take_poll_stats(30))
    b = account.update_worker("b", 9.0, RemoteRateLimit(interval_s=10.0).take_poll_stats(10))
    assert 1 / a.gap_s + 1 / b.gap_s == pytest.approx(1 / pace.gap_s)
    assert b.gap_s == pytest.approx(3 * a.gap_s)
    account.remove_worker("b")
    assert account.update_worker("a", 9.0, RemoteRateLimit(interval_s=10.0).take_poll_stats(30)) == RateShare(
        pace.gap_s
    )


def test_many_workers_find_the_rate_together() -> None:
    """Three workers that would look 40 times a second, where 10 are allowed: as well as one would do."""
    account = RateLimitPool(AdaptiveRateLimit(interval_s=10.0))
    workers = {name: RemoteRateLimit(interval_s=10.0) for name in "abc"}
    passed: list[float] = []
    refused = 0
    for tick in range(60 * 40):
        now = tick / 40
        for number, (name, worker) in enumerate(workers.items()):
            if worker.acquire_delay_s(now) == 0.0:
                if len(passed) >= 10 and passed[-10] > now - 1.0:
                    worker.on_rate_limited(now)
                    refused += now > 20
                else:
                    passed.append(now)
                    worker.on_success(now)
            if tick % 40 == 13 * number:
                worker.set_share(
                    now, account.update_worker(name, now, worker.take_poll_stats(20 * (number + 1)))
                )
    late = [moment for moment in passed if moment > 20]
    assert len(late) > 0.6 * 10 * 40
    assert refused < 0.2 * len(late)
