"""One row's unexpected error is the row's; many rows' errors, one after the other, are the run's."""

from __future__ import annotations

import pytest

from pipeline.circuit_breaker import MIN_ROWS, RECENT_TASKS, CircuitBreaker
from pipeline.events import Event, ObserverGroup, Topic
from tests.unit.samples import record


def stops_at(tasks: str) -> int | None:
    """Return the task at which the run stops. A letter is the row that crashes, a dot one that succeeds."""
    breaker = CircuitBreaker()
    for number, task in enumerate(tasks):
        if task == ".":
            breaker.on_success()
        elif breaker.on_crash(task):
            return number
    return None


@pytest.mark.parametrize(
    ("tasks", "stop"),
    [
        ("a" * 50, None),
        ("abcd" * 20, None),
        ("abcde", MIN_ROWS - 1),
        (".abcde", MIN_ROWS),
        ("a.b.c.d.e", MIN_ROWS + 3),
        ("a..b..c..d..e..f..g..h..i..j", None),
        ("." * 100 + "abcdefghij", None),
        ("." * 100 + "abcdefghijk", 100 + RECENT_TASKS // 2),
        ("abcd" + "." * 20 + "efgh" + "." * 20, None),
    ],
)
def test_when_the_failures_of_rows_are_the_runs(tasks: str, stop: int | None) -> None:
    assert stops_at(tasks) == stop


class Broken:
    """An observer that never works."""

    def on_transition(self, before: object, after: object) -> None:
        raise KeyError("transition")

    def on_event(self, event: Event) -> None:
        raise ValueError("event")


class Recorder(Broken):
    def __init__(self) -> None:
        self.seen: list[object] = []

    def on_transition(self, before: object, after: object) -> None:
        self.seen.append(after)

    def on_event(self, event: Event) -> None:
        self.seen.append(event)


def test_an_observer_that_raises_is_reported_once_and_the_others_see_everything() -> None:
    recorder = Recorder()
    group = ObserverGroup(Broken(), recorder)
    row = record()
    note = Event(Topic.NOTE, "hello")
    group.on_transition(row, row)
    group.on_event(note)
    group.on_transition(row, row)
    crash, *others = recorder.seen
    assert isinstance(crash, Event)
    assert crash.topic is Topic.CRASH
    assert "Broken" in crash.message
    assert "KeyError" in str(crash.facts["traceback"])
    assert others == [row, note, row]
