"""No final answer that costs money is believed from one poll."""

from __future__ import annotations

import pytest

from pipeline.client.responses import GenerationStatus, Phase
from pipeline.model import Failure
from pipeline.plan import NO_VIDEO
from pipeline.poll.confirmation import (
    ERROR_GAP_INTERVALS,
    LONG_ERROR_GAP_INTERVALS,
    MIN_ERROR_INTERVAL_S,
    MIN_LONG_POLLS,
    URL_WAIT_INTERVALS,
    Confirmations,
    Confirmed,
    Finality,
    StillRunning,
    Unconfirmed,
)

INTERVAL_S = 10.0
GAP_S = ERROR_GAP_INTERVALS * INTERVAL_S
URL_WAIT_S = URL_WAIT_INTERVALS * INTERVAL_S
LONG_S = LONG_ERROR_GAP_INTERVALS * INTERVAL_S

RUNNING = GenerationStatus(Phase.RUNNING, "generating")
DONE = GenerationStatus(Phase.COMPLETED, "completed", video_url="https://cdn.example.com/a.mp4")
BOTH = ("https://cdn.example.com/a.mp4", "https://cdn.example.com/b.mp4")
PAIR = GenerationStatus(Phase.COMPLETED, "completed", video_url=BOTH[0], video_urls=BOTH)
FIRST = GenerationStatus(Phase.COMPLETED, "completed", video_url=BOTH[0], video_urls=(BOTH[0], ""))
SECOND = GenerationStatus(Phase.COMPLETED, "completed", video_url=BOTH[1], video_urls=("", BOTH[1]))
BOOM = Failure("generation_error", "boom", retryable=True)
ERROR = GenerationStatus(Phase.FAILED, "error", "g", failure=BOOM)
NAMELESS = GenerationStatus(Phase.FAILED, "error", failure=BOOM)
NO_URL = GenerationStatus(Phase.FAILED, "completed", failure=Failure(NO_VIDEO, "no URL"))


def lasting(status: GenerationStatus, until_s: float) -> list[tuple[float, GenerationStatus]]:
    """Return as many answers as something that lasts has to have, the last of them at `until_s`."""
    return [(until_s * number / (MIN_LONG_POLLS - 1), status) for number in range(MIN_LONG_POLLS)]


def confirmed(*answers: tuple[float, GenerationStatus], completed_before: bool = False) -> Finality:
    """Return what the last of several answers proves, each with its time."""
    confirmations = Confirmations(INTERVAL_S)
    result: Finality = StillRunning()
    for now, status in answers:
        result = confirmations.confirm("row", status, now, completed_before=completed_before)
    return result


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(0.0, RUNNING)], StillRunning()),
        ([(0.0, DONE)], Confirmed(DONE)),
        ([(0.0, ERROR)], Unconfirmed(GAP_S)),
        ([(0.0, ERROR), (4.0, ERROR)], Unconfirmed(GAP_S - 4.0)),
        ([(0.0, ERROR), (GAP_S, ERROR)], Confirmed(ERROR)),
        ([(0.0, ERROR), (GAP_S, RUNNING)], StillRunning()),
        ([(0.0, ERROR), (5.0, RUNNING), (GAP_S + 1.0, ERROR)], Unconfirmed(GAP_S)),
        ([(0.0, ERROR), (GAP_S, DONE)], Confirmed(DONE)),
        ([(0.0, NAMELESS), (GAP_S, NAMELESS)], Unconfirmed(INTERVAL_S)),
        (lasting(NAMELESS, LONG_S), Confirmed(NAMELESS)),
        (lasting(NAMELESS, LONG_S - 1.0), Unconfirmed(1.0)),
        # A machine that was suspended has seen nothing of the time between two polls.
        ([(0.0, NAMELESS), (LONG_S, NAMELESS)], Unconfirmed(INTERVAL_S)),
        ([(0.0, NAMELESS), *lasting(NAMELESS, LONG_S)[2:]], Unconfirmed(INTERVAL_S)),
        ([(0.0, NAMELESS), (LONG_S - 1.0, RUNNING), (LONG_S, NAMELESS)], Unconfirmed(INTERVAL_S)),
        ([(0.0, NAMELESS), (LONG_S, ERROR)], Unconfirmed(GAP_S)),
        ([(0.0, ERROR), (5.0, NAMELESS), (GAP_S, ERROR)], Confirmed(ERROR)),
        ([(0.0, ERROR), (GAP_S, NAMELESS)], Unconfirmed(INTERVAL_S)),
        ([(0.0, NAMELESS), (LONG_S, DONE)], Confirmed(DONE)),
        ([(0.0, NO_URL)], Unconfirmed(INTERVAL_S)),
        ([(0.0, NO_URL), (50.0, NO_URL)], Unconfirmed(INTERVAL_S)),
        ([(0.0, NO_URL), (50.0, DONE)], Confirmed(DONE)),
        (lasting(NO_URL, URL_WAIT_S), Confirmed(NO_URL)),
        (lasting(NO_URL, URL_WAIT_S - 1.0), Unconfirmed(INTERVAL_S)),
        ([(0.0, NO_URL), (URL_WAIT_S, NO_URL)], Unconfirmed(INTERVAL_S)),
        ([(0.0, NO_URL), (GAP_S, ERROR), (2 * GAP_S, ERROR)], Unconfirmed(INTERVAL_S)),
        ([(0.0, PAIR)], Confirmed(PAIR)),
        ([(0.0, FIRST)], Unconfirmed(INTERVAL_S)),
        ([(0.0, FIRST), (GAP_S, PAIR)], Confirmed(PAIR)),
        # An answer that names fewer clips takes none back.
        ([(0.0, FIRST), (GAP_S, DONE)], Unconfirmed(INTERVAL_S)),
        ([(0.0, FIRST), (GAP_S, RUNNING), (2 * GAP_S, DONE)], Unconfirmed(INTERVAL_S)),
        (lasting(FIRST, URL_WAIT_S), Confirmed(FIRST)),
        (lasting(FIRST, URL_WAIT_S - 1.0), Unconfirmed(INTERVAL_S)),
        ([(0.0, FIRST), *lasting(ERROR, URL_WAIT_S)[1:]], Confirmed(FIRST)),
        ([(0.0, FIRST), *lasting(NO_URL, URL_WAIT_S)[1:]], Confirmed(FIRST)),
    ],
)
def test_what_answers_prove(answers: list[tuple[float, GenerationStatus]], expected: Finality) -> None:
    assert confirmed(*answers) == expected


def test_the_urls_of_several_clips_may_come_in_several_answers() -> None:
    last = confirmed((0.0, SECOND), (GAP_S, FIRST))
    assert isinstance(last, Confirmed)
    assert last.status.video_urls == BOTH


def test_what_was_once_completed_never_becomes_a_failure_that_is_not_paid_for() -> None:
    last = confirmed((0.0, NO_URL), *lasting(ERROR, URL_WAIT_S)[1:])
    assert isinstance(last, Confirmed)
    assert last.status.failure == Failure(NO_VIDEO, "called completed first and then error: boom")


def test_an_earlier_runs_completed_counts() -> None:
    assert confirmed((0.0, ERROR), (GAP_S, ERROR), completed_before=True) == Unconfirmed(INTERVAL_S)
    last = confirmed(*lasting(ERROR, URL_WAIT_S), completed_before=True)
    assert isinstance(last, Confirmed)
    assert last.status.failure is not None
    assert last.status.failure.code == NO_VIDEO


@pytest.mark.parametrize(
    ("status", "gap_intervals"), [(ERROR, ERROR_GAP_INTERVALS), (NAMELESS, LONG_ERROR_GAP_INTERVALS)]
)
def test_more_polls_do_not_make_an_error_pass_sooner(status: GenerationStatus, gap_intervals: float) -> None:
    confirmations = Confirmations(1.0)
    last_s = gap_intervals * MIN_ERROR_INTERVAL_S
    for now in (0.0, 2.0, 3.0, 4.0, 5.0, last_s - 1.0):
        assert confirmations.confirm("row", status, now, completed_before=False) == Unconfirmed(1.0)
    assert confirmations.confirm("row", status, last_s, completed_before=False) == Confirmed(status)


def test_a_stand_ins_time_goes_faster() -> None:
    confirmations = Confirmations(0.1)
    assert confirmations.confirm("row", ERROR, 0.0, completed_before=False) == Unconfirmed(0.1)
    assert confirmations.confirm("row", ERROR, 0.1, completed_before=False) == Confirmed(ERROR)


@pytest.mark.parametrize(
    ("answers", "expected"), [((ERROR,), ERROR), ((NAMELESS,), None), ((ERROR, NAMELESS), ERROR)]
)
def test_only_an_error_that_names_its_generation_is_borne_out_by_404(
    answers: tuple[GenerationStatus, ...], expected: GenerationStatus | None
) -> None:
    confirmations = Confirmations(INTERVAL_S)
    for status in answers:
        confirmations.confirm("row", status, 0.0, completed_before=False)
    assert confirmations.last_error("row") == expected
    confirmations.confirm("row", RUNNING, 1.0, completed_before=False)
    confirmations.confirm("row", NAMELESS, 2.0, completed_before=False)
    assert confirmations.last_error("row") is None


def test_an_error_has_to_last_where_another_process_may_have_seen_the_generation_completed() -> None:
    confirmations = Confirmations(INTERVAL_S)
    confirmations.on_taken_over("row")
    last_s = LONG_ERROR_GAP_INTERVALS * INTERVAL_S
    for now, _ in lasting(ERROR, last_s)[:-1]:
        answer = confirmations.confirm("row", ERROR, now, completed_before=False)
        assert answer == Unconfirmed(INTERVAL_S)
    assert confirmations.last_error("row") is None
    assert confirmations.confirm("row", ERROR, last_s, completed_before=False) == Confirmed(ERROR)


def test_a_generation_that_is_taken_over_may_be_completed_after_all() -> None:
    confirmations = Confirmations(INTERVAL_S)
    confirmations.on_taken_over("row")
    confirmations.confirm("row", ERROR, 0.0, completed_before=False)
    assert confirmations.confirm("row", NO_URL, GAP_S, completed_before=False) == Unconfirmed(INTERVAL_S)
    for now, error in lasting(ERROR, URL_WAIT_S):
        last = confirmations.confirm("row", error, now + GAP_S, completed_before=False)
    assert isinstance(last, Confirmed)
    assert last.status.failure is not None
    assert last.status.failure.code == NO_VIDEO
