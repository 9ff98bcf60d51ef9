"""Deadlines come in their order, in whichever order they were set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.poll.deadlines import Deadlines

TIMES = st.lists(st.integers(0, 9).map(float), max_size=30)


@given(TIMES, st.sets(st.integers(0, 29)), st.integers(0, 9).map(float))
def test_each_deadline_that_has_come_is_popped_once_and_in_order(
    times: list[float], removed: set[int], now: float
) -> None:
    deadlines = Deadlines()
    for number, at in enumerate(times):
        deadlines.set(str(number), at)
    for number in removed:
        assert deadlines.remove(str(number)) == (number < len(times))
    expected = sorted(at for number, at in enumerate(times) if number not in removed and at <= now)
    popped = list(iter(lambda: deadlines.pop_due(now), None))
    assert [times[int(key)] for key in popped] == expected
    assert len(set(popped)) == len(popped)
    assert all(key in deadlines and deadlines.has_passed(key, now) for key in popped)


def test_a_deadline_that_is_set_again_comes_at_its_new_time_only() -> None:
    deadlines = Deadlines()
    deadlines.set("a", 5.0)
    deadlines.set("b", 6.0)
    deadlines.set("a", 9.0)
    assert deadlines.pop_due(7.0) == "b"
    assert deadlines.pop_due(8.0) is None
    assert deadlines.pop_due(9.0) == "a"


def test_expiring_all_brings_every_deadline_forward() -> None:
    deadlines = Deadlines()
    for key in "abc":
        deadlines.set(key, 7.0)
    deadlines.expire_all()
    assert sorted(iter(lambda: deadlines.pop_due(0.0), None)) == ["a", "b", "c"]
    assert deadlines.pop_due(7.0) is None


def test_a_deadline_is_extended_where_there_is_one_and_it_comes_before() -> None:
    deadlines = Deadlines()
    deadlines.set("a", 5.0)
    deadlines.set("b", 9.0)
    for key in "abc":
        deadlines.extend(key, 7.0)
    assert deadlines.pop_due(6.0) is None
    assert deadlines.pop_due(7.0) == "a"
    assert deadlines.pop_due(8.0) is None
    assert deadlines.pop_due(9.0) == "b"
    assert "c" not in deadlines
