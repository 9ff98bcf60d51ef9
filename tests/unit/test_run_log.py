"""The run's log: its lines, what may not stand in them, its rotation, and a disk that is full."""

from __future__ import annotations

import json
import resource
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.events import Event, Level, Topic
from pipeline.model import Failure, State
from pipeline.results.run_log import Redactor, RunLog
from tests.unit.sample_rows import T0, done, row

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-very+secret/key"
SIGNED = "https://cdn.example/v.mp4?X-Amz-Signature=abc123&X-Amz-Expires=600"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_step_and_an_event_carry_every_id(tmp_path: Path) -> None:
    path = tmp_path / "out" / "run.log"
    before = row(0, State.SUBMITTING, correlation_id="vb-0-1")
    after = before.evolve(State.GENERATING, generation_id="gen:0/x", attempts=1)
    with RunLog(path, clock=lambda: T0) as log:
        log.on_transition(before, after)
        log.follow({after.key: after})
        log.on_event(Event(Topic.POLL_FAILED, "a poll failed", Level.WARNING, after.key, {"status": 502}))
    assert lines(path) == [
        {
            "time": "2026-09-21T14:13:20.000Z",
            "level": "info",
            "topic": "moved",
            "job": "job-0",
            "generation_id": "gen:0/x",
            "correlation_id": "vb-0-1",
            "message": "submitting -> generating",
            "facts": {"from": "submitting", "to": "generating", "version": 1, "attempts": 1},
        },
        {
            "time": "2026-09-21T14:13:20.000Z",
            "level": "warning",
            "topic": "poll_failed",
            "job": "job-0",
            "generation_id": "gen:0/x",
            "correlation_id": "vb-0-1",
            "message": "a poll failed",
            "facts": {"status": 502},
        },
    ]


def test_events_about_rows_of_an_earlier_run_carry_every_id(tmp_path: Path) -> None:
    known = row(0, State.GENERATING, generation_id="gen-0", correlation_id="vb-0-1")
    with RunLog(tmp_path / "run.log") as log:
        log.follow({known.key: known})
        log.on_event(Event(Topic.POLL_FAILED, "a poll failed", key=known.key))
    (line,) = lines(tmp_path / "run.log")
    assert (line["job"], line["generation_id"], line["correlation_id"]) == ("job-0", "gen-0", "vb-0-1")


def test_a_failure_is_a_warning_with_its_reason(tmp_path: Path) -> None:
    before = row(0, State.SUBMITTING)
    with RunLog(tmp_path / "run.log") as log:
        log.on_transition(before, before.evolve(State.FAILED, failure=Failure("refused", "too small")))
    (line,) = lines(tmp_path / "run.log")
    assert line["level"] == "warning"
    assert (line["facts"]["error_code"], line["facts"]["error_message"]) == ("refused", "too small")


@pytest.mark.parametrize(
    ("said", "written"),
    [
        (f"key {KEY}!", "key ***!"),
        ("key sk-very%2Bsecret%2Fkey!", "key ***!"),
        (f"GET {SIGNED} -> 403", "GET https://cdn.example/v.mp4?… -> 403"),
        ("see https://a.example/x?a=1, then b", "see https://a.example/x?… then b"),
        ("https://user:pass@a.example/x", "https://a.example/x"),
        ("https://user:pass@a.example/x?q", "https://a.example/x?…"),
        ("/v.mp4?X-Amz-Signature=abc123&b=2", "/v.mp4?X-Amz-Signature=…&b=2"),
        ("Authorization: Bearer abc.def", "Authorization: … ***"),
        ("HTTPS://A.example/x?Sig=1", "HTTPS://A.example/x?…"),
        ("line 3: what? nothing", "line 3: what? nothing"),
    ],
)
def test_no_secret_is_written(said: str, written: str) -> None:
    assert Redactor([KEY])(said) == written


def test_secrets_are_kept_out_of_every_place(tmp_path: Path) -> None:
    before = row(0, State.GENERATING, correlation_id=KEY)
    after = before.evolve(State.READY, video_url=SIGNED)
    with RunLog(tmp_path / "run.log", [KEY]) as log:
        log.on_transition(before, after)
        log.on_event(Event(Topic.NOTE, KEY, facts={"url": SIGNED, KEY: KEY}))
    written = (tmp_path / "run.log").read_text()
    assert KEY not in written
    assert "abc123" not in written
    assert "https://cdn.example/v.mp4?…" in written


def test_the_log_rotates_and_keeps_a_few(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    with RunLog(path, max_bytes=2000, backups=2) as log:
        for number in range(200):
            log.on_event(Event(Topic.NOTE, f"note {number}"))
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["run.log", "run.log.1", "run.log.2"]
    assert all(file.stat().st_size <= 2000 for file in tmp_path.iterdir())
    messages = [line["message"] for name in reversed(names) for line in lines(tmp_path / name)]
    assert messages == [f"note {number}" for number in range(200 - len(messages), 200)]


def test_a_second_run_appends(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLog(tmp_path / "run.log") as log:
            log.on_transition(done(0), done(0))
    assert len(lines(tmp_path / "run.log")) == 2


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RunLog(path) as log:
        log.on_event(Event(Topic.NOTE, "before", Level.WARNING))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            for _ in range(100):
                log.on_event(Event(Topic.NOTE, "x" * 200, Level.WARNING))
            log.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.lost_lines > 50
    assert [line["message"] for line in lines(path)] == ["before", *["x" * 200] * (100 - log.lost_lines)]


def test_a_place_that_is_no_folder_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with RunLog(tmp_path / "file" / "run.log") as log:
        log.on_event(Event(Topic.NOTE, "nobody reads this"))
    assert log.lost_lines == 1


def test_a_line_that_a_killed_run_has_torn_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_text('{"time": "2026-0')
    with RunLog(path) as log:
        log.on_event(Event(Topic.NOTE, "on a line of its own"))
    assert json.loads(path.read_text().splitlines()[1])["message"] == "on a line of its own"


def test_text_that_utf8_cannot_hold_is_written(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run.log") as log:
        log.on_event(Event(Topic.NOTE, "a\ud800b\u2028c\n", facts={"n": float("nan")}))
    (line,) = lines(tmp_path / "run.log")
    assert line["message"] == "a?b\u2028c\n"
    assert line["facts"] == {"n": "nan"}
