"""The end of a run: text or one JSON object, the exit code, and the command that continues."""

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
from typing import Any

import jsonschema
import pytest

from pipeline.batch.paths import BatchPaths
from pipeline.cli.reporting.summary import show_summary, to_text
from pipeline.errors import ExitCode, StopReason
from pipeline.model import Failure, Record, State
from pipeline.results.csv_rows import STATUSES
from pipeline.results.run_delta import not_new
from pipeline.results.summary_json import summary_schema
from pipeline.run_state import RunOutcome
from pipeline.runner.summary import RunSummary, continuing_argv
from tests.unit.samples import record

PLACE = BatchPaths(Path("output/night"), "output/night")


@pytest.fixture(autouse=True)
def output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a run that went well, where `PLACE` says."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "output" / "night"
    (folder / "videos").mkdir(parents=True)
    for name in ("results.csv", "report.html", "run.log"):
        (folder / name).write_text("")
    return folder


ARGV = ("run", "jobs/my night.yaml", "--concurrency", "6")
DONE = record(State.DONE, "a", 0, usd_spent=1.2)
FAILED_JOB = record(
    State.FAILED, "b", 1, failure=Failure("generation_error", "an internal fault", retryable=True)
)
REFUSED_JOB = record(State.FAILED, "b", 1, line=7, failure=Failure("refused", "the vendor's message"))
OPEN = record(State.GENERATING, "c", 2)


def make_summary(
    *records: Record,
    stop: StopReason | None = None,
    message: str = "",
    code: ExitCode = ExitCode.DONE,
    argv: tuple[str, ...] = ARGV,
    place: BatchPaths = PLACE,
    left: dict[str, str] | None = None,
    **facts: Any,
) -> RunSummary:
    return RunSummary(argv, place, RunOutcome(records, stop, message, left or {}), 12.3456, code, **facts)


def test_the_summary_names_everything_a_script_needs() -> None:
    made = make_summary(
        DONE, FAILED_JOB, stop=StopReason.CREDITS, message="out of credits", code=ExitCode.RESUMABLE
    )
    told = json.loads(json.dumps(made.to_json()))
    assert (told["total"], told["counts"]["done"], told["counts"]["failed"]) == (2, 1, 1)
    assert set(told["counts"]) == {status.value for status in STATUSES}
    assert (told["exit_code"], told["stop"], told["message"]) == (3, "credits", "out of credits")
    assert (told["results"], told["report"]) == ("output/night/results.csv", "output/night/report.html")
    assert (told["videos"], told["wall_s"], told["usd_spent"]) == ("output/night/videos", 12.346, 1.2)


def test_places_in_an_object_store_are_urls() -> None:
    told = make_summary(DONE, place=BatchPaths(Path("output/night"), "s3://bucket/night/")).to_json()
    assert told["results"] == "s3://bucket/night/results.csv"


@pytest.mark.parametrize("stop", list(StopReason))
def test_a_run_that_stopped_says_the_exact_command_that_goes_on(stop: StopReason) -> None:
    step = make_summary(DONE, OPEN, stop=stop, message="why").next_step()
    assert shlex.split(step.command) == ["veobatch", *ARGV]
    assert str(step) == (f"{step.command}  ({step.hint})" if step.hint else step.command)


@pytest.mark.parametrize("stop", list(StopReason))
def test_a_script_can_run_the_next_command_as_it_is(stop: StopReason) -> None:
    told = make_summary(DONE, OPEN, stop=stop, message="why").to_json()
    assert shlex.split(told["next"]) == ["veobatch", *ARGV]


def test_open_rows_are_a_reason_to_go_on_even_without_a_stop() -> None:
    assert shlex.split(make_summary(DONE, OPEN).next_step().command) == ["veobatch", *ARGV]


def test_failed_rows_are_offered_once_more_and_not_for_ever() -> None:
    assert make_summary(DONE, FAILED_JOB).next_step().command.endswith(" --retry-failed")
    assert make_summary(DONE, FAILED_JOB, argv=(*ARGV, "--retry-failed")).next_step().command == ""
    assert make_summary(DONE).next_step().command == ""


def test_refused_rows_are_to_be_edited_not_retried() -> None:
    refused = make_summary(DONE, REFUSED_JOB, argv=(*ARGV, "--retry-failed")).next_step()
    assert (shlex.split(refused.command), refused.hint) == (
        ["veobatch", *ARGV],
        "after editing line 7 of the manifest",
    )
    content = replace(REFUSED_JOB, key="c", line=3, failure=Failure("content_refused", "no"))
    assert make_summary(REFUSED_JOB, content).next_step().hint == "after editing lines 3, 7 of the manifest"


def test_only_failures_that_a_retry_may_cure_are_retried() -> None:
    step = make_summary(DONE, replace(FAILED_JOB, key="x"), REFUSED_JOB).next_step()
    assert step.command.endswith(" --retry-failed --only generation_error")


def test_a_wrong_address_is_not_offered_again() -> None:
    lost = record(State.FAILED, "b", 1, failure=Failure("not_found", "404"))
    step = make_summary(lost, argv=(*ARGV, "--base-url", "https://example.com/x")).next_step()
    assert shlex.split(step.command) == ["veobatch", *ARGV, "--retry-failed"]
    assert "--base-url" in step.hint


def test_a_spent_budget_is_offered_as_large_as_the_batch_needs() -> None:
    argv = (*ARGV, "--max-cost", "2", "--yes")
    step = make_summary(DONE, WAITING, stop=StopReason.BUDGET, argv=argv, batch_usd=7.2).next_step()
    assert shlex.split(step.command) == ["veobatch", *ARGV, "--yes", "--max-cost", "7.20"]
    assert step.hint == ""


def test_a_failed_row_that_left_the_manifest_is_nobodys_business() -> None:
    gone = record(State.FAILED, "b", -1, failure=Failure("refused", "x"))
    assert make_summary(DONE, gone).next_step().command == ""


def test_resubmitting_in_doubt_rows_is_not_suggested_repeatedly() -> None:
    doubt = record(State.IN_DOUBT, "b", 1)
    argv = (*ARGV, "--resubmit-in-doubt")
    step = make_summary(DONE, doubt, stop=StopReason.IN_DOUBT, argv=argv).next_step()
    assert shlex.split(step.command) == ["veobatch", *ARGV]


def test_the_words_name_the_reason_the_failure_and_the_places() -> None:
    made = make_summary(
        DONE,
        FAILED_JOB,
        OPEN,
        stop=StopReason.QUOTA,
        message="the hour's quota is used up",
        code=ExitCode.RESUMABLE,
        left={OPEN.key: "not finished by its deadline"},
    )
    words = to_text(made)
    for part in (
        "the hour's quota is used up",
        "1 row failed with generation_error: an internal fault",
        "not finished by its deadline",
        "output/night/results.csv",
        "output/night/report.html",
        "output/night/run.log",
        "--wait-for-quota",
    ):
        assert part in words


def test_the_headline_counts_states_and_names_the_stop() -> None:
    assert (
        make_summary(DONE, FAILED_JOB).headline() == "1 failed, 1 done"
        or make_summary(DONE, FAILED_JOB).headline() == "1 done, 1 failed"
    )
    assert make_summary(OPEN, stop=StopReason.KEY).headline().endswith("(stopped: key)")
    assert make_summary(DONE, stop=StopReason.INTERRUPTED).headline() == "1 done"
    assert make_summary().headline() == "no rows"


STUCK = record(State.IN_DOUBT, "d", 3)
WAITING = record(State.PENDING, "e", 4)
OUT_OF_CREDITS = "HTTP 403: You've run out of credits."


@pytest.mark.parametrize(
    ("stop", "rows", "opening", "goes_on"),
    [
        (None, (DONE,), "", ""),
        (None, (DONE, FAILED_JOB), "", " --retry-failed"),
        (None, (DONE, REFUSED_JOB), "", "(after editing line 7 of the manifest)"),
        (StopReason.INTERRUPTED, (DONE,), "Interrupted, with nothing left to do.", ""),
        (
            StopReason.INTERRUPTED,
            (DONE, FAILED_JOB),
            "Interrupted, with nothing left to do.",
            " --retry-failed",
        ),
        (StopReason.INTERRUPTED, (DONE, FAILED_JOB, WAITING), "Interrupted before the end.", "6"),
        (
            StopReason.CREDITS,
            (DONE, WAITING),
            f"Stopped early: {OUT_OF_CREDITS}",
            "(after topping up the account)",
        ),
        (StopReason.KEY, (WAITING,), f"Stopped early: {OUT_OF_CREDITS}", "(with a key that works)"),
        (
            StopReason.BUDGET,
            (DONE, FAILED_JOB, WAITING),
            f"Stopped early: {OUT_OF_CREDITS}",
            "(with a larger --max-cost)",
        ),
        (
            StopReason.DISK,
            (DONE, OPEN),
            f"Stopped early: {OUT_OF_CREDITS}",
            "(once the output can be written)",
        ),
        (
            StopReason.DISK,
            (DONE,),
            f"Every row is finished, but {OUT_OF_CREDITS}",
            "(once the output can be written)",
        ),
        (
            StopReason.LEDGER,
            (DONE, OPEN),
            f"Stopped early: {OUT_OF_CREDITS}",
            "(once the ledger can be used)",
        ),
        (
            StopReason.UNREACHABLE,
            (WAITING,),
            f"Stopped early: {OUT_OF_CREDITS}",
            "(once the API can be reached)",
        ),
        (StopReason.DEADLINE, (DONE, FAILED_JOB, OPEN), "Not finished before --timeout: 1 row.", "6"),
        (StopReason.UNFINISHED, (OPEN,), "1 row could not be finished in this run.", "6"),
        (StopReason.UNFINISHED, (WAITING,), f"Stopped early: {OUT_OF_CREDITS}", "6"),
        (
            StopReason.IN_DOUBT,
            (DONE, STUCK),
            "The vendor's log does not yet show what became of 1 row.",
            "may pay twice)",
        ),
    ],
)
def test_the_first_words_fit_how_it_ended(
    stop: StopReason | None, rows: tuple[Record, ...], opening: str, goes_on: str
) -> None:
    left = {OPEN.key: "not finished"} if OPEN in rows else {}
    made = make_summary(*rows, stop=stop, message=OUT_OF_CREDITS if stop else "", left=left)
    assert made.stop_explanation() == opening
    assert to_text(made).startswith(opening)
    assert str(made.next_step()).endswith(goes_on)
    assert bool(made.next_step().command) is bool(goes_on)


def test_a_terminated_run_says_who_ended_it() -> None:
    made = make_summary(DONE, stop=StopReason.INTERRUPTED, message="x", code=ExitCode.TERMINATED)
    assert made.stop_explanation() == "Ended by SIGTERM, with nothing left to do."


def test_results_that_could_not_be_written_are_told() -> None:
    made = replace(make_summary(DONE, code=ExitCode.RESUMABLE), results_not_written=True)
    assert made.stop_explanation() == "results.csv or report.html could not be written."
    assert made.next_step().hint == "once the output can be written"
    assert made.to_json()["message"] == "results.csv or report.html could not be written"
    full = replace(
        make_summary(DONE, OPEN, stop=StopReason.DISK, message="disk full"), results_not_written=True
    )
    assert full.stop_explanation() == "Stopped early: disk full", "said once is enough"


def test_in_a_terminal_lines_end_between_words_and_the_command_stays_whole() -> None:
    argv = ("run", "x" * 60, "--output", "y" * 60)
    made = make_summary(DONE, OPEN, stop=StopReason.CREDITS, message="word " * 40, argv=argv)
    terminal, process = pty.openpty()
    fcntl.ioctl(process, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    with os.fdopen(process, "w") as stream, contextlib.redirect_stdout(stream):
        show_summary(made, as_json=False, quiet=False)
        stream.flush()
        said = os.read(terminal, 100_000).decode().replace("\r", "")
    os.close(terminal)
    lines = said.rstrip("\n").split("\n")
    assert lines[-1] == f"Next: {made.next_step()}"
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
    show_summary(make_summary(DONE, code=code), as_json=False, quiet=quiet)
    assert bool(capsys.readouterr().out) is said


def test_a_summary_is_one_line_of_json_also_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    odd = record(State.FAILED, "b", 1, failure=Failure("x", "line\nbreak \u2028 ü"))
    show_summary(make_summary(DONE, odd, message="two\nlines"), as_json=True, quiet=True)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out)["exit_code"] == 0


def test_the_json_is_as_its_schema_says() -> None:
    stuck = record(State.IN_DOUBT, "d", 3)
    unknown = replace(DONE, usd_spent=None, reserved_usd=None)
    for made in (
        make_summary(),
        make_summary(unknown),
        make_summary(DONE, REFUSED_JOB, stuck, stop=StopReason.IN_DOUBT, message="m", sandbox=True),
        make_summary(DONE, OPEN, stop=StopReason.DISK, results_not_written=True),
    ):
        told = json.loads(json.dumps(made.to_json()))
        jsonschema.validate(told, summary_schema())
        assert set(told) == set(summary_schema()["properties"])
        assert "" not in told.values()


def test_the_json_lists_failures_and_names_the_sandbox() -> None:
    told = make_summary(DONE, REFUSED_JOB, sandbox=True, code=ExitCode.SOME_FAILED).to_json()
    assert told["sandbox"] is True
    assert told["failures"] == [
        {
            "id": "b",
            "line": 7,
            "status": "failed",
            "code": "refused",
            "message": "the vendor's message",
            "request_id": None,
        }
    ]
    assert (told["message"], told["stopped_reason"], told["next_hint"]) == (
        None,
        None,
        "after editing line 7 of the manifest",
    )


def test_only_files_that_exist_are_listed(output_folder: Path) -> None:
    for name in ("report.html", "run.log"):
        (output_folder / name).unlink()
    words = to_text(make_summary(FAILED_JOB))
    assert "results.csv" in words
    assert not [name for name in ("report.html", "run.log", "videos") if name in words]
    assert make_summary(FAILED_JOB).to_json()["report"] is None


def test_a_rehearsal_is_never_said_to_cost_money() -> None:
    words = to_text(make_summary(DONE, sandbox=True))
    assert "no money was spent ($1.20 of play money)" in words
    assert "spent" not in words.replace("no money was spent", "")
    assert make_summary(DONE, sandbox=True).headline().endswith("(sandbox)")


def test_a_run_that_had_nothing_to_do_says_so() -> None:
    words = to_text(make_summary(DONE, initial_records=(DONE,)))
    assert words.startswith("Nothing to do: the video was saved before.\n$1.20 spent")
    assert "Slowest" not in words
    assert "finished in" not in words
    with_failure = to_text(make_summary(DONE, FAILED_JOB, initial_records=(DONE, FAILED_JOB)))
    assert with_failure.startswith("Nothing to do. 1 of 2 videos is saved. 1 failed.")


def test_a_continued_run_says_what_it_did_itself() -> None:
    before = record(State.PENDING, "e", 4)
    after = replace(before, state=State.DONE, version=3, attempts=1, usd_spent=1.2)
    assert not_new((DONE, before)) == (DONE,)
    words = to_text(make_summary(DONE, after, initial_records=(DONE,)))
    assert "In this run: 1 submitted, 1 saved. 1 video was saved before." in words
    assert "$2.40 spent ($1.20 in this run)" in words


def test_one_reason_is_given_once() -> None:
    rows = [record(State.READY, f"r{n}", n, line=0) for n in range(6)]
    full = "the disk is full"
    made = make_summary(*rows, stop=StopReason.DISK, message=full, left={row.key: full for row in rows})
    words = to_text(made)
    assert words.count(full) == 1
    assert "\n  r4" in words
    assert "  … and 1 more" in words


def test_refusals_of_one_kind_are_one_paragraph() -> None:
    rows = [
        record(
            State.FAILED,
            f"r{n}",
            n,
            line=0,
            prompt=f"Prompt number {n}",
            failure=Failure("content_refused", f"No: id {n}x"),
        )
        for n in range(20)
    ]
    words = to_text(make_summary(*rows, code=ExitCode.SOME_FAILED))
    assert words.count("content_refused") == 1
    assert "20 rows failed with content_refused: No: id 0x" in words
    assert 'r0: "Prompt number 0"' in words
    assert "… and 15 more in output/night/results.csv" in words
    assert "Edit the prompts" in words
    assert "--retry-failed" not in words


CLOSED_READER_SCRIPT = """
import sys
from pathlib import Path
from pipeline.cli.reporting.summary import show_summary
from pipeline.runner.summary import RunSummary
from pipeline.batch.paths import BatchPaths
from pipeline.run_state import RunOutcome
from pipeline.errors import ExitCode
made = RunSummary((), BatchPaths(Path("o"), "o"), RunOutcome((), None, "", {}), 1.0, ExitCode.RESUMABLE)
sys.stdin.read()
show_summary(made, as_json=sys.argv[1] == "json", quiet=False)
sys.exit(int(made.exit_code))
"""


@pytest.mark.parametrize("form", ["json", "words"])
def test_the_exit_code_survives_a_reader_that_left(form: str) -> None:
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", CLOSED_READER_SCRIPT, form],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=write,
        stderr=subprocess.PIPE,
    )
    os.close(write)
    os.close(read)
    _, complaints = process.communicate(b"")
    assert (process.returncode, complaints) == (3, b"")


def test_what_was_not_selected_is_counted_and_left_to_the_next_command() -> None:
    pending = record(State.PENDING, "d", 3)
    argv = (*ARGV, "--select", "a*", "--limit=1")
    made = make_summary(DONE, REFUSED_JOB, pending, argv=argv)
    made = replace(made, outcome=replace(made.outcome, unselected=frozenset({REFUSED_JOB.key, pending.key})))
    assert str(made.next_step()) == shlex.join(["veobatch", *ARGV])
    assert "still pending: 1 row." in made.stop_explanation()
    assert "1 row that failed before" in made.stop_explanation()


@pytest.mark.parametrize("given", [("--retake", "a"), ("--retake=a", "--retake", "rejected")])
def test_a_retake_that_the_ledger_has_is_not_asked_for_again(given: tuple[str, ...]) -> None:
    argv = ("run", "m.yaml", *given, "--concurrency", "6")
    plain = ["run", "m.yaml", "--concurrency", "6"]
    assert continuing_argv(argv) == plain
    retry = shlex.join(["veobatch", *plain, "--retry-failed"])
    assert make_summary(DONE, FAILED_JOB, argv=argv).next_step().command == retry
    assert make_summary(DONE, OPEN, argv=argv).next_step().command == shlex.join(["veobatch", *plain])
    kept = make_summary(DONE, OPEN, stop=StopReason.KEY, argv=argv, submits=False)
    assert kept.next_step().command == shlex.join(["veobatch", *argv]), "it has not begun"
