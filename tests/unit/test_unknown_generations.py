"""Only minutes of 404, and only while other generations are known, say that one is missing."""

from __future__ import annotations

import pytest

from pipeline.poll.unknown_generations import NOT_FOUND_INTERVALS, OUTAGE_INTERVALS, UnknownIds

INTERVAL_S = 10.0
UNKNOWN_S = NOT_FOUND_INTERVALS * INTERVAL_S
OUTAGE_S = OUTAGE_INTERVALS * INTERVAL_S


@pytest.mark.parametrize(
    ("answers", "unknown"),
    [
        ([(0.0, 404), (1.0, 404), (UNKNOWN_S, 404)], True),
        ([(0.0, 404), (UNKNOWN_S, 404)], False),
        ([(0.0, 404), (1.0, 404), (UNKNOWN_S - 1.0, 404)], False),
        # Nothing but 404: whatever else comes in between, or no answer at all, begins anew.
        *(
            ([(0.0, 404), (1.0, 404), (2.0, other), (UNKNOWN_S, 404), (UNKNOWN_S + 1.0, 404)], False)
            for other in (0, 200, 401, 429, 500, 502)
        ),
        ([(0.0, 404), (1.0, 404), (UNKNOWN_S, 404), (UNKNOWN_S + 1.0, 503)], False),
    ],
)
def test_a_generation_is_unknown_once_404_is_all_that_was_answered(
    answers: list[tuple[float, int]], *, unknown: bool
) -> None:
    keys: dict[str, float] = {}
    ids = UnknownIds(INTERVAL_S, keys, set())
    told = [ids.on_error("row", http_status, now) for now, http_status in answers]
    assert ("row" in keys) is unknown
    assert told[-1] is unknown


def test_an_unknown_generation_is_told_of_once_and_forgotten_with_any_answer() -> None:
    keys: dict[str, float] = {}
    ids = UnknownIds(INTERVAL_S, keys, set())
    told = [ids.on_error("row", 404, now) for now in (0.0, 1.0, UNKNOWN_S, UNKNOWN_S + 1.0)]
    assert told == [False, False, True, False]
    ids.forget("row")
    assert keys == {}
    assert not ids.on_error("row", 404, UNKNOWN_S + 2.0)


def test_more_polls_do_not_make_a_generation_unknown_sooner() -> None:
    ids = UnknownIds(1.0, {}, set())
    assert not any(ids.on_error("row", 404, now) for now in (0.0, 18.0, UNKNOWN_S - 1.0))
    assert ids.on_error("row", 404, UNKNOWN_S)


def missing_after(polls: list[tuple[float, int, float]]) -> bool:
    """Return whether a generation is missing after polls, each with its time, its status and when others were
    last known."""
    missing: set[str] = set()
    ids = UnknownIds(INTERVAL_S, {}, missing)
    for now, http_status, others_known_at in polls:
        ids.on_error("row", http_status, now, others_known_at)
    return "row" in missing


GAP_S = UNKNOWN_S / 10
ALL_ALONG = [(number * GAP_S, 404, number * GAP_S - 1.0) for number in range(11)]
OUTAGE = [(number * GAP_S, 404, -1.0) for number in range(40)]
BACK_S = 40 * GAP_S


def test_a_generation_is_missing_that_alone_is_unknown_for_minutes() -> None:
    assert missing_after(ALL_ALONG)
    assert not missing_after(ALL_ALONG[:-1])


def test_two_polls_say_nothing_of_the_minutes_between_them() -> None:
    """A machine that was suspended has seen nothing of that time."""
    assert not missing_after([ALL_ALONG[0], *ALL_ALONG[-4:]])
    assert missing_after([ALL_ALONG[0], *ALL_ALONG[-5:]])


def test_an_answer_about_it_begins_anew() -> None:
    assert not missing_after([*ALL_ALONG, (UNKNOWN_S + 1.0, 503, UNKNOWN_S)])
    assert not missing_after([*ALL_ALONG[:5], (4.5 * GAP_S, 502, 4.5 * GAP_S), *ALL_ALONG[5:]])


def test_an_outage_of_the_endpoint_makes_none_missing() -> None:
    """Nor once it is over: the 404s that came in it say nothing, however many they were."""
    assert not missing_after(OUTAGE)
    assert not missing_after([*OUTAGE, (BACK_S, 404, BACK_S - 1.0)])
    again = [(BACK_S + number * GAP_S, 404, BACK_S + number * GAP_S - 1.0) for number in range(11)]
    assert not missing_after([*OUTAGE, *again[:-1]])
    assert missing_after([*OUTAGE, *again])


def test_an_outage_takes_back_that_it_was_missing() -> None:
    assert not missing_after([*ALL_ALONG, (UNKNOWN_S + OUTAGE_S + 1.0, 404, UNKNOWN_S)])
    assert missing_after([*ALL_ALONG, (UNKNOWN_S + OUTAGE_S - 1.0, 404, UNKNOWN_S)])


def test_a_single_lucky_answer_in_an_outage_is_not_enough() -> None:
    assert not missing_after([*OUTAGE[:5], *((now, 404, 4.0 * GAP_S) for now, *_ in OUTAGE[5:])])
