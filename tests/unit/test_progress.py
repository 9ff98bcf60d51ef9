"""What is said while a run goes on and at its end, on a stream that is no terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from pipeline.cli.progress import Progress, RunCounts
from pipeline.cli.reporting.summary_text import MAX_ROWS_PER_GROUP, summary_text
from pipeline.cli.reporting.terminal import (
    can_draw_bars,
    display_width,
    duration_text,
    joined_to_width,
    one_line,
    truncated,
    wrapped_to_width,
)
from pipeline.events import Event, Level, Topic
from pipeline.model import Failure, State
from pipeline.results.failures import IN_DOUBT_MESSAGE
from pipeline.results.totals import summarize
from tests.unit.sample_rows import done, failed, row


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class ProgressHarness:
    """A `Progress` on a plain stream, with a clock that a test moves."""

    def __init__(self, total: int = 3, **facts: Any) -> None:
        self.clock = Clock()
        self.stream = io.StringIO()
        self.progress = Progress(total, self.stream, environ={}, clock=self.clock, **facts)

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.progress.tick()

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


def test_a_plain_line_comes_after_ten_seconds_and_then_every_half_minute() -> None:
    shown = ProgressHarness()
    with shown.progress:
        shown.wait(9.9)
        assert shown.lines == []
        shown.wait(0.1)
        assert shown.lines == ["submitted 0/3, rendered 0, saved 0"]
        shown.progress.on_transition(row(0), done(0))
        shown.wait(29.9)
        assert len(shown.lines) == 1
        shown.wait(0.1)
        assert shown.lines[1:] == ["submitted 1/3, rendered 1, saved 1, $1.20"]
        shown.wait(30)
        assert len(shown.lines) == 2, "nothing new"
        shown.progress.on_transition(row(1), done(1))
    assert shown.lines[-1] == "submitted 2/3, rendered 2, saved 2, $2.40"


def test_a_long_run_does_not_fill_its_log() -> None:
    shown = ProgressHarness(100_000)
    for index in range(10_000):
        shown.progress.on_transition(row(index), done(index))
        shown.wait(4)
    assert len(shown.lines) < 250


def test_a_continued_run_counts_from_where_it_was() -> None:
    shown = ProgressHarness(known=[done(0), row(1, State.GENERATING), row(2)])
    with shown.progress:
        shown.progress.on_transition(row(1, State.GENERATING), done(1))
    assert shown.lines == ["submitted 2/3, rendered 2, saved 2, $2.40"]


def test_money_and_time_are_told_when_they_are_known() -> None:
    shown = ProgressHarness(eta=lambda: 3900.0, estimate_usd=3.6)
    with shown.progress:
        shown.progress.on_transition(row(0), row(0, State.GENERATING, reserved_usd=1.2))
        shown.wait(10)
    counted = "submitted 1/3, rendered 0, saved 0, $1.20 of $3.60"
    assert shown.lines == [f"{counted}, 1 h 05 min left", counted], "a run that is over has no time left"


def test_a_time_that_nobody_can_know_is_said_to_be_unknown() -> None:
    shown = ProgressHarness(eta=lambda: None)
    with shown.progress:
        shown.wait(10)
    counted = "submitted 0/3, rendered 0, saved 0"
    assert shown.lines == [f"{counted}, time left unknown", counted]


def test_no_time_is_left_when_all_is_done() -> None:
    shown = ProgressHarness(1, eta=lambda: 3.0)
    with shown.progress:
        shown.progress.on_transition(row(0), done(0))
    assert shown.lines == ["submitted 1/1, rendered 1, saved 1, $1.20"]


def test_after_the_end_only_events_are_told() -> None:
    shown = ProgressHarness()
    with shown.progress:
        pass
    shown.progress.on_transition(row(0), done(0))
    shown.progress.on_event(Event(Topic.NOTE, "the page is not written", Level.WARNING))
    shown.wait(1000)
    assert shown.lines == ["submitted 0/3, rendered 0, saved 0", "the page is not written"]


def test_a_create_on_its_way_is_neither_submitted_nor_in_doubt() -> None:
    tally = RunCounts(1)
    tally.on_transition(row(0), row(0, State.SUBMITTING, reserved_usd=1.2))
    assert (tally.submitted, tally.warnings(), tally.usd) == (0, [], 0.0)


def test_removed_rows_are_not_counted() -> None:
    assert RunCounts(1, [done(5, position=-1)]).saved == 0


@pytest.mark.parametrize(
    ("facts", "levels"),
    [
        ({"quiet": True}, {"error"}),
        ({}, {"error", "warning"}),
        ({"verbose": 1}, {"error", "warning", "info"}),
        ({"verbose": 2}, {"error", "warning", "info", "debug"}),
    ],
)
def test_how_much_is_said(facts: dict[str, Any], levels: set[str]) -> None:
    shown = ProgressHarness(**facts)
    for level in Level:
        shown.progress.on_event(Event(Topic.NOTE, level.value, level))
    assert set(shown.lines) == levels


def test_quiet_says_nothing_of_the_rest() -> None:
    shown = ProgressHarness(quiet=True)
    with shown.progress:
        shown.progress.on_transition(row(0), failed(0))
        shown.progress.on_event(Event(Topic.THROTTLED, "429"))
        shown.wait(1000)
    assert shown.lines == []


def test_failures_are_told_at_once_but_not_without_end() -> None:
    shown = ProgressHarness(100)
    for index in range(50):
        shown.progress.on_transition(row(index), failed(index, f"no\x1b[2J\nface in {index}.jpg"))
    assert shown.lines[0] == "failed job-0 (line 4): refused: no�[2J face in 0.jpg"
    assert len(shown.lines) == 4
    assert shown.lines[-1] == "more rows failed with refused: see the summary at the end"
    shown.progress.on_transition(row(50), failed(50, "another reason"))
    assert shown.lines[-1] == "failed job-50 (line 204): refused: another reason"


def test_a_failed_row_is_not_rendered() -> None:
    shown = ProgressHarness()
    with shown.progress:
        shown.progress.on_transition(row(0), done(0))
        shown.progress.on_transition(row(1), failed(1))
        shown.progress.on_transition(row(2), failed(2, submitted_at=None))
    assert shown.lines[-1] == "submitted 2/3, rendered 1, saved 1, 2 failed, $1.20"


@pytest.mark.parametrize(
    ("saved", "minutes", "rate"), [(2, 1, "2.0/min"), (1630, 1, "1,630/min"), (24, 2, "12/min")]
)
def test_the_rate_is_a_plain_number(saved: int, minutes: float, rate: str) -> None:
    shown = ProgressHarness(2000)
    for index in range(saved):
        shown.progress.on_transition(row(index), done(index))
    shown.clock.now = 60 * minutes
    assert shown.progress._rate() == [rate]


def test_twice_verbose_shows_every_change_of_state() -> None:
    once, twice = ProgressHarness(verbose=1), ProgressHarness(verbose=2)
    for shown in (once, twice):
        shown.progress.on_transition(row(0), row(0, State.SUBMITTING))
        shown.progress.on_transition(row(0, State.READY), done(0))
    assert once.lines == ["saved job-0 (line 4): videos/job-0.mp4"]
    assert twice.lines == ["job-0 (line 4): pending -> submitting", *once.lines]


def test_play_money_is_called_so() -> None:
    shown = ProgressHarness(estimate_usd=3.6, sandbox=True)
    with shown.progress:
        shown.progress.on_transition(row(0), done(0))
    assert shown.lines[-1].endswith("$1.20 of $3.60 in play money")


def test_a_stream_that_cannot_hold_a_letter_gets_another_one() -> None:
    raw = io.BytesIO()
    progress = Progress(1, io.TextIOWrapper(raw, encoding="ascii"), environ={})
    progress.print_line("Ω")
    assert raw.getvalue() == b"?\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "bars"),
    [
        ({}, True),
        ({"TERM": "dumb"}, False),
        ({"CI": "true"}, False),
        ({"CI": "1"}, False),
        ({"CI": "false"}, True),
    ],
)
def test_who_gets_bars(environ: dict[str, str], bars: bool) -> None:
    assert can_draw_bars(Terminal(), environ) is bars
    assert not can_draw_bars(io.StringIO(), environ)


def test_the_last_words_tell_everything() -> None:
    rows = [*(done(index, 80.0 + index) for index in range(5)), failed(5, "too\nsmall"), row(6)]
    rows.append(row(7, State.IN_DOUBT, correlation_id="vb-7-1", reserved_usd=1.2))
    words = summary_text(
        summarize(rows),
        rows,
        {"page": "out/report.html", "table": "out/results.csv"},
        "Next: veobatch run x.yaml",
        wall_s=342.0,
        stop_explanation="Stopped early: out of credits",
        unfinished={"job-6@f6": "the deadline passed"},
    )
    assert words.splitlines() == [
        "Stopped early: out of credits",
        "5 of 8 videos are saved. 1 failed, 1 is in doubt and 1 is not submitted.",
        (
            "$6.00 spent; $1.20 reserved for rows that are not settled; finished in 5 min 42 s; "
            "40 s of footage; 10.0 MB."
        ),
        "",
        "Slowest to render:",
        "    1 min 24 s  job-4 (line 20)",
        "    1 min 23 s  job-3 (line 16)",
        "    1 min 22 s  job-2 (line 12)",
        "",
        "1 row failed with refused: too small",
        '  job-5 (line 24): "Prompt 5."',
        "  Edit these rows: the same content would be refused again. An edited row is a new job.",
        "",
        f"1 row in doubt: {IN_DOUBT_MESSAGE}",
        '  job-7 (line 32): "Prompt 7.", correlation id vb-7-1',
        "",
        "Left for the next run: the deadline passed",
        '  job-6 (line 28): "Prompt 6."',
        "",
        "Page   out/report.html",
        "Table  out/results.csv",
        "",
        "Next: veobatch run x.yaml",
    ]


def test_the_last_words_are_bounded() -> None:
    rows = [failed(index, "x" * 5000) for index in range(1000)]
    words = summary_text(summarize(rows), rows, {"table": "out/results.csv"})
    assert f"  … and {1000 - MAX_ROWS_PER_GROUP} more in out/results.csv" in words
    assert len(words) < 20_000


def test_prices_that_are_not_known_are_named() -> None:
    assumed = [replace(done(0), usd_spent=None)]
    unknown = [replace(done(0), usd_spent=None, reserved_usd=None)]
    assert "$1.20 spent ($1.20 of it estimated)" in summary_text(summarize(assumed), assumed, {})
    assert "The cost is unknown" in summary_text(summarize(unknown), unknown, {})


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3569, "59 min"),
        (3599, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_times_on_a_clock(seconds: float, words: str) -> None:
    assert duration_text(seconds) == words


def test_nothing_moves_the_cursor() -> None:
    assert one_line("a\x1b[2Jb\rc\nd\te\x9bf\u202eg\ud800") == "a�[2Jb c d e�f�g?"


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("hello", 5, "hello"),
        ("hello", 4, "hel…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("e\u0301e\u0301", 2, "e\u0301e\u0301"),
    ],
)
def test_text_is_cut_by_columns(text: str, width: int, shown: str) -> None:
    assert truncated(text, width) == shown
    assert display_width(shown) <= width


def test_the_first_facts_matter_most() -> None:
    assert joined_to_width(["12 min left", "3 failed", "$1"], 40) == "12 min left · 3 failed · $1"
    assert joined_to_width(["12 min left", "300000 failed", "$1"], 18) == "12 min left · $1"
    assert joined_to_width(["12 min left"], 5) == "12 m…"
    assert joined_to_width([], 5) == ""


def test_a_failure_without_words_is_told() -> None:
    rows = [row(0, State.FAILED), row(1, State.FAILED, failure=Failure("timeout", ""))]
    words = summary_text(summarize(rows), rows, {})
    assert "1 row failed: no reason was recorded\n  job-0 (line 4)" in words
    assert "1 row failed with timeout: no reason was recorded\n  job-1 (line 8)" in words


@pytest.mark.parametrize(
    ("line", "width", "lines"),
    [
        ("short", 20, ["short"]),
        ("one two three four five six", 20, ["one two three four", "  five six"]),
        ("  one two three four five", 20, ["  one two three", "    four five"]),
        (
            "https://example.com/a-very-long-path of it",
            20,
            ["https://example.com/a-very-long-path", "  of it"],
        ),
        ("one two three four five six", 3, ["one two three four", "  five six"]),
        ("", 20, [""]),
    ],
)
def test_long_lines_are_broken_between_words(line: str, width: int, lines: list[str]) -> None:
    assert wrapped_to_width(line, width).split("\n") == lines
