"""The last words of a run: one JSON object or text, the code, and the command that goes on."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shlex
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli.paths import Place
from pipeline.cli.summary import Ending
from pipeline.errors import ExitCode, StopReason
from pipeline.model import Failure, Record, State
from pipeline.results.csv import STATUSES
from pipeline.run_state import Outcome
from tests.unit.samples import record

PLACE = Place(Path("output/night"), "output/night")
ARGV = ("run", "jobs/my night.yaml", "--concurrency", "6")
DONE = record(State.DONE, "a", 0, usd_spent=1.2)
LOST = record(State.FAILED, "b", 1, failure=Failure("refused", "the vendor's words"))
OPEN = record(State.GENERATING, "c", 2)


def ending(
    *records: Record,
    stop: StopReason | None = None,
    message: str = "",
    code: ExitCode = ExitCode.DONE,
    argv: tuple[str, ...] = ARGV,
    place: Place = PLACE,
    left: dict[str, str] | None = None,
) -> Ending:
    return Ending(argv, place, Outcome(records, stop, message, left or {}), 12.3456, code)


def test_the_summary_names_everything_a_script_needs() -> None:
    made = ending(DONE, LOST, stop=StopReason.CREDITS, message="out of credits", code=ExitCode.RESUMABLE)
    told = json.loads(json.dumps(made.to_json()))
    assert (told["total"], told["counts"]["done"], told["counts"]["failed"]) == (2, 1, 1)
    assert set(told["counts"]) == {status.value for status in STATUSES}
    assert (told["exit_code"], told["stop"], told["message"]) == (3, "credits", "out of credits")
    assert (told["results"], told["report"]) == ("output/night/results.csv", "output/night/report.html")
    assert (told["videos"], told["wall_s"], told["usd_spent"]) == ("output/night/videos", 12.346, 1.2)


def test_places_in_an_object_store_are_urls() -> None:
    told = ending(DONE, place=Place(Path("output/night"), "s3://bucket/night/")).to_json()
    assert told["results"] == "s3://bucket/night/results.csv"


@pytest.mark.parametrize("stop", list(StopReason))
def test_a_run_that_stopped_says_the_exact_command_that_goes_on(stop: StopReason) -> None:
    command = ending(DONE, OPEN, stop=stop, message="why").next_command()
    words, _, hint = command.partition("  (")
    assert shlex.split(words) == ["veobatch", *ARGV]
    assert hint == "" or hint.endswith(")")


@pytest.mark.parametrize("stop", list(StopReason))
def test_a_script_can_run_the_next_command_as_it_is(stop: StopReason) -> None:
    told = ending(DONE, OPEN, stop=stop, message="why").to_json()
    assert shlex.split(told["next"]) == ["veobatch", *ARGV]


def test_open_rows_are_a_reason_to_go_on_even_without_a_stop() -> None:
    assert shlex.split(ending(DONE, OPEN).next_command()) == ["veobatch", *ARGV]


def test_failed_rows_are_offered_once_more_and_not_for_ever() -> None:
    assert ending(DONE, LOST).next_command().endswith(" --retry-failed")
    assert ending(DONE, LOST, argv=(*ARGV, "--retry-failed")).next_command() == ""
    assert ending(DONE).next_command() == ""


def test_a_failed_row_that_left_the_manifest_is_nobodys_business() -> None:
    gone = record(State.FAILED, "b", -1, failure=Failure("refused", "x"))
    assert ending(DONE, gone).next_command() == ""


def test_nobody_is_led_to_send_doubtful_rows_again_and_again() -> None:
    doubt = record(State.IN_DOUBT, "b", 1)
    argv = (*ARGV, "--resubmit-in-doubt")
    command = ending(DONE, doubt, stop=StopReason.IN_DOUBT, argv=argv).next_command()
    assert shlex.split(command.partition("  (")[0]) == ["veobatch", *ARGV]


def test_the_words_name_the_reason_the_failure_and_the_places() -> None:
    made = ending(
        DONE,
        LOST,
        OPEN,
        stop=StopReason.QUOTA,
        message="the hour's quota is used up",
        code=ExitCode.RESUMABLE,
        left={OPEN.key: "not finished by its deadline"},
    )
    words = made.words()
    for part in (
        "the hour's quota is used up",
        "refused: the vendor's words",
        "not finished by its deadline",
        "output/night/results.csv",
        "output/night/report.html",
        "output/night/run.log",
        "--wait-for-quota",
    ):
        assert part in words


def test_the_headline_counts_states_and_names_the_stop() -> None:
    assert (
        ending(DONE, LOST).headline() == "1 failed, 1 done"
        or ending(DONE, LOST).headline() == "1 done, 1 failed"
    )
    assert ending(OPEN, stop=StopReason.KEY).headline().endswith("(stopped: key)")
    assert ending(DONE, stop=StopReason.INTERRUPTED).headline() == "1 done"
    assert ending().headline() == "no rows"


STUCK = record(State.IN_DOUBT, "d", 3)
WAITING = record(State.PENDING, "e", 4)
OUT = "HTTP 403: You've run out of credits."


@pytest.mark.parametrize(
    ("stop", "rows", "opening", "goes_on"),
    [
        (None, (DONE,), "", ""),
        (None, (DONE, LOST), "", " --retry-failed"),
        (StopReason.INTERRUPTED, (DONE,), "Interrupted, with nothing left to do.", ""),
        (StopReason.INTERRUPTED, (DONE, LOST), "Interrupted, with nothing left to do.", " --retry-failed"),
        (StopReason.INTERRUPTED, (DONE, LOST, WAITING), "Interrupted before the end.", "6"),
        (StopReason.CREDITS, (DONE, WAITING), f"Stopped early: {OUT}", "(after topping up the account)"),
        (StopReason.KEY, (WAITING,), f"Stopped early: {OUT}", "(with a key that works)"),
        (StopReason.BUDGET, (DONE, LOST, WAITING), f"Stopped early: {OUT}", "(with a larger --max-cost)"),
        (StopReason.DISK, (DONE, OPEN), f"Stopped early: {OUT}", "(once the output can be written)"),
        (StopReason.DISK, (DONE,), f"Nothing is left to do, but {OUT}", "(once the output can be written)"),
        (StopReason.LEDGER, (DONE, OPEN), f"Stopped early: {OUT}", "6"),
        (StopReason.UNREACHABLE, (WAITING,), f"Stopped early: {OUT}", "6"),
        (StopReason.DEADLINE, (DONE, LOST, OPEN), "Not finished in time: 1 row.", "6"),
        (StopReason.UNFINISHED, (OPEN,), "Not everything could be finished: 1 row had to be left.", "6"),
        (StopReason.UNFINISHED, (WAITING,), f"Stopped early: {OUT}", "6"),
        (
            StopReason.IN_DOUBT,
            (DONE, STUCK),
            "The vendor's log does not tell yet what became of 1 row.",
            "may pay twice)",
        ),
    ],
)
def test_the_first_words_fit_how_it_ended(
    stop: StopReason | None, rows: tuple[Record, ...], opening: str, goes_on: str
) -> None:
    left = {OPEN.key: "not finished"} if OPEN in rows else {}
    made = ending(*rows, stop=stop, message=OUT if stop else "", left=left)
    assert made.opening() == opening
    assert made.words().startswith(opening)
    assert made.next_command().endswith(goes_on)
    assert bool(made.next_command()) is bool(goes_on)


def test_a_terminated_run_says_who_ended_it() -> None:
    made = ending(DONE, stop=StopReason.INTERRUPTED, message="x", code=ExitCode.TERMINATED)
    assert made.opening() == "Ended by SIGTERM, with nothing left to do."


def test_results_that_could_not_be_written_are_told() -> None:
    made = replace(ending(DONE, code=ExitCode.RESUMABLE), unwritten=True)
    assert made.opening() == "The table or the page could not be written."
    assert made.next_command().endswith("  (once the output can be written)")
    assert made.to_json()["message"] == "the table or the page could not be written"
    full = replace(ending(DONE, OPEN, stop=StopReason.DISK, message="disk full"), unwritten=True)
    assert full.opening() == "Stopped early: disk full", "said once is enough"


def test_in_a_terminal_lines_end_between_words_and_the_command_stays_whole() -> None:
    argv = ("run", "x" * 60, "--output", "y" * 60)
    made = ending(DONE, OPEN, stop=StopReason.CREDITS, message="word " * 40, argv=argv)
    terminal, process = pty.openpty()
    fcntl.ioctl(process, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    with os.fdopen(process, "w") as stream, contextlib.redirect_stdout(stream):
        made.show(as_json=False, quiet=False)
        stream.flush()
        said = os.read(terminal, 100_000).decode().replace("\r", "")
    os.close(terminal)
    lines = said.rstrip("\n").split("\n")
    assert lines[-1] == f"Next: {made.next_command()}"
    assert max(map(len, lines[:-1])) <= 60
    assert "word word" in lines[1]


@pytest.mark.parametrize(
    ("quiet", "code", "said"),
    [
        (False, ExitCode.DONE, True),
        (True, ExitCode.DONE, False),
        (True, ExitCode.SOME_FAILED, True),
        (True, ExitCode.RESUMABLE, True),
    ],
)
def test_a_quiet_run_that_is_done_says_nothing(
    capsys: pytest.CaptureFixture[str], quiet: bool, code: ExitCode, said: bool
) -> None:
    ending(DONE, code=code).show(as_json=False, quiet=quiet)
    assert bool(capsys.readouterr().out) is said


def test_a_summary_is_one_line_of_json_also_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    odd = record(State.FAILED, "b", 1, failure=Failure("x", "line\nbreak \u2028 ü"))
    ending(DONE, odd, message="two\nlines").show(as_json=True, quiet=True)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out)["exit_code"] == 0


GONE = """
import sys
from pathlib import Path
from pipeline.cli.summary import Ending
from pipeline.cli.paths import Place
from pipeline.run_state import Outcome
from pipeline.errors import ExitCode
made = Ending((), Place(Path("o"), "o"), Outcome((), None, "", {}), 1.0, ExitCode.RESUMABLE)
sys.stdin.read()
made.show(as_json=sys.argv[1] == "json", quiet=False)
sys.exit(int(made.code))
"""


@pytest.mark.parametrize("form", ["json", "words"])
def test_the_exit_code_survives_a_reader_that_left(form: str) -> None:
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", GONE, form], stdin=subprocess.PIPE, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    os.close(read)
    _, complaints = process.communicate(b"")
    assert (process.returncode, complaints) == (3, b"")
