"""How the command starts: quickly, and with the settings that its user meant."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from pipeline.batch.request import RunRequest
from pipeline.cli import COMMANDS, cli
from pipeline.cli.options import LAST_GROUP, RUN_OPTION_GROUPS
from pipeline.errors import ExitCode, StopReason, UsageError
from pipeline.model import Failure, State
from pipeline.run_state import RunOutcome
from pipeline.runner.config import resolve_settings
from pipeline.runner.execute import exit_code
from pipeline.settings import Settings
from tests import forked_python
from tests.unit.samples import record

HEAVY = {
    "PIL", "aiofiles", "aiohttp", "anyio", "apprise", "asyncio", "av", "filelock", "jinja2", "numpy",
    "obstore", "prometheus_client", "psycopg", "pydantic", "ray", "sqlalchemy", "sqlite3", "ssl",
    "tenacity", "tqdm", "yaml", "yarl",
}  # fmt: skip


def imported(*arguments: str) -> set[str]:
    """The top-level names of all that a command imports before it ends."""
    command = [sys.executable, "-X", "importtime", "-m", "pipeline", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout
    names = (line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if "|" in line)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["run", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    names = imported(*arguments)
    assert "click" in names
    assert names & HEAVY == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_is_listed_is_there_and_explains_itself(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    shown = command.get_help(click.Context(command, info_name=f"veobatch {name}"))
    assert f"Usage: veobatch {name} " in shown
    assert len(shown.splitlines()) >= 5


def test_the_options_of_run_are_grouped_with_the_rare_ones_last() -> None:
    command = cli.get_command(click.Context(cli), "run")
    assert command is not None
    shown = command.get_help(click.Context(command, info_name="veobatch run"))
    titles = [line.rstrip(":") for line in shown.splitlines() if line.endswith(":") and line[0] != " "]
    assert titles == [*RUN_OPTION_GROUPS, LAST_GROUP]
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or parameter.opts[0] in shown


def test_the_help_lists_every_command() -> None:
    shown = cli.get_help(click.Context(cli, info_name="veobatch"))
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert cli.get_command(click.Context(cli), "no-such") is None


def veobatch(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    root = Path(__file__).parents[2]
    environ = {**kept, "PYTHONPATH": str(root), "HOME": str(folder), "NO_COLOR": "1", **environ}
    return asyncio.run(forked_python.run("-m", "pipeline", *arguments, cwd=folder, env=environ))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    place = tmp_path / "night.yaml"
    place.write_text("- [https://example.com/a.jpg, She laughs.]\n")
    return place


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        ([], {}, "AIMLAPI_API_KEY"),
        ([], {"AIML_API_KEY": "two words"}, "AIML_API_KEY"),
        (["--base-url", "nonsense"], {"AIML_API_KEY": "k"}, "nonsense"),
        (["--concurrency", "0"], {"AIML_API_KEY": "k"}, "concurrency"),
        (["--concurrency", "many"], {"AIML_API_KEY": "k"}, "concurrency"),
        ([], {"AIML_API_KEY": "k", "VEOBATCH_TIMEOUT": "-3"}, "the environment: timeout"),
        (["--timeout", "nan"], {"AIML_API_KEY": "k"}, "timeout"),
        (["--only", "refused"], {"AIML_API_KEY": "k"}, "--retry-failed"),
        (["--name", "{nonsense}"], {"AIML_API_KEY": "k"}, "{nonsense}"),
        (["--output", "weird://x"], {"AIML_API_KEY": "k"}, "weird://x"),
        (["--serve", "no-port"], {"AIML_API_KEY": "k"}, "no-port"),
        (["--sandbox", "--sandbox-speed", "0"], {}, "speed"),
        (["--sandbox", "--sandbox-speed", "nan"], {}, "speed"),
        (["--sandbox", "--output", ""], {}, "--output"),
        (["--ledger", ""], {"AIML_API_KEY": "k"}, "--ledger is empty"),
        (["--base-url="], {"AIML_API_KEY": "k"}, "--base-url is empty"),
        (["--junit", ""], {"AIML_API_KEY": "k"}, "--junit is empty"),
        (["--notify", " "], {"AIML_API_KEY": "k"}, "--notify is empty"),
        (["--batch", "", "--ledger", "x"], {"AIML_API_KEY": "k"}, "--batch is empty"),
        (["--serve", ""], {"AIML_API_KEY": "k"}, "--serve is empty"),
        ([], {"AIML_API_KEY": "k", "VEOBATCH_LEDGER": ""}, "VEOBATCH_LEDGER is set but empty"),
        ([], {"AIML_API_KEY": "k", "VEOBATCH_MAX_COST": " "}, "VEOBATCH_MAX_COST is set but empty"),
        ([], {"AIML_API_KEY": "k", "AIML_API_BASE": ""}, "AIML_API_BASE is set but empty"),
        ([], {"AIML_API_KEY": ""}, "AIML_API_KEY is set but empty"),
        (["--no-such-option"], {"AIML_API_KEY": "k"}, "--no-such-option"),
        (
            ["--sandbox", "--base-url", "http://127.0.0.1:9"],
            {},
            "--sandbox and --base-url exclude each other",
        ),
        (["--base-url", "https://u:secretpw@h/"], {"AIML_API_KEY": "k"}, "'https://***@h/' cannot be used"),
        (
            ["--image-base-url", "foo"],
            {"AIML_API_KEY": "k"},
            "image_base_url: Value error, it should look like",
        ),
        ([], {"AIML_API_KEY": "k", "VEOBATCH_IMAGE_BASE_URL": "http://"}, "the environment: image_base_url"),
    ],
)
def test_wrong_usage_is_said_and_nothing_is_touched(
    manifest: Path, arguments: list[str], environ: dict[str, str], words: str
) -> None:
    ended = veobatch(manifest.parent, "run", "night.yaml", *arguments, **environ)
    assert ended.returncode == 2, ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "secretpw" not in ended.stderr
    assert ended.stdout == ""
    assert [path.name for path in manifest.parent.iterdir()] == ["night.yaml"]


@pytest.mark.parametrize(
    "arguments",
    [["run", ""], ["status", ""], ["status", ".", "--ledger="], ["costs", "night.yaml", "--base-url", ""],
     ["adopt", "n.yaml", "", "g"], ["estimate", "night.yaml", "--base-url", ""], ["sandbox", "--key", ""]],
    ids=" ".join,
)  # fmt: skip
def test_an_empty_value_is_an_error_of_every_command(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is empty"):
        cli.main(arguments, standalone_mode=False)


def test_a_manifest_that_is_not_there_is_named(tmp_path: Path) -> None:
    ended = veobatch(tmp_path, "run", "nowhere.yaml", "--sandbox")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "nowhere.yaml" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_stopped_start_speaks_json_too(manifest: Path) -> None:
    """Scripts that read standard output get an object for every exit that is theirs to handle."""
    (manifest.parent / "taken").write_text("a file where the folder should be")
    ended = veobatch(manifest.parent, "run", "night.yaml", "--sandbox", "--json", "--output", "taken")
    assert ended.returncode == 3, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["exit_code"], told["stop"]) == (3, "disk")
    assert "taken" in told["message"]


def test_a_live_pages_port_that_is_taken_is_wrong_usage(manifest: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = veobatch(manifest.parent, "run", "night.yaml", "--sandbox", "--serve", port)
    assert ended.returncode == 2, ended.stderr
    assert port in ended.stderr
    assert "Traceback" not in ended.stderr


def request(**changes: Any) -> RunRequest:
    return RunRequest(Path("night.yaml"), **changes)


def test_flags_win_over_the_environment_and_that_over_the_manifest() -> None:
    asked = request(
        flags={"concurrency": 1, "downloads": None}, environment={"concurrency": 2, "downloads": 3}
    )
    settings = resolve_settings(asked, {"concurrency": 4, "downloads": 5, "timeout": 60})
    assert (settings.concurrency, settings.downloads, settings.timeout) == (1, 3, 60.0)


def test_what_nobody_says_has_its_default() -> None:
    assert resolve_settings(request(), {}) == Settings()


@pytest.mark.parametrize(("speed", "interval"), [(20.0, 0.5), (1.0, 10.0), (0.5, 10.0)])
def test_faster_sandbox_is_polled_sooner(speed: float, interval: float) -> None:
    assert resolve_settings(request(sandbox=True, sandbox_speed=speed), {}).poll_interval == interval
    assert resolve_settings(request(sandbox_speed=speed), {}).poll_interval == 10.0
    assert resolve_settings(request(sandbox=True), {"poll_interval": 3}).poll_interval == 3.0


def test_a_setting_of_the_manifest_is_blamed_on_the_manifest() -> None:
    with pytest.raises(UsageError, match=r"night\.yaml: run: timeout"):
        resolve_settings(request(), {"timeout": "soon"})


DONE = record(State.DONE, "a", 0)
FAILED = record(State.FAILED, "b", 1, failure=Failure("refused", "no"))


@pytest.mark.parametrize(
    ("records", "stop", "code"),
    [
        ((), None, ExitCode.DONE),
        ((DONE,), None, ExitCode.DONE),
        ((DONE, FAILED), None, ExitCode.SOME_FAILED),
        ((DONE, record(State.FAILED, "gone", -1)), None, ExitCode.DONE),
        ((DONE, record(State.PENDING, "gone", -1)), None, ExitCode.DONE),
        ((FAILED, record(State.PENDING, "c", 2)), None, ExitCode.RESUMABLE),
        ((FAILED, record(State.IN_DOUBT, "c", 2)), StopReason.IN_DOUBT, ExitCode.RESUMABLE),
        ((DONE, record(State.GENERATING, "gone", -1)), None, ExitCode.RESUMABLE),
        *[((DONE,), stop, ExitCode.RESUMABLE) for stop in StopReason],
    ],
)
def test_the_exit_code_of_an_outcome(
    records: tuple[Any, ...], stop: StopReason | None, code: ExitCode
) -> None:
    assert exit_code(RunOutcome(records, stop, "", {})) is code


def test_a_manifest_that_was_rewritten_throughout_is_not_paid_for_again_unasked(tmp_path: Path) -> None:
    manifest = tmp_path / "night.yaml"
    rows = "".join(f"- [https://example.com/{n}.jpg, 'A cat number {n}.']\n" for n in range(4))
    manifest.write_text(rows)
    arguments = ("run", "night.yaml", "--sandbox", "--sandbox-speed", "1000", "--yes", "--json")
    assert json.loads(veobatch(tmp_path, *arguments).stdout)["counts"]["done"] == 4
    manifest.write_text(rows.replace("number", "no."))
    refused = veobatch(tmp_path, *arguments)
    assert refused.returncode == 2
    assert "4 rows of the manifest are new" in refused.stderr
    assert "--as-new" in refused.stderr
    manifest.write_text(rows)
    assert veobatch(tmp_path, *arguments).returncode == 0
    manifest.write_text(rows.replace("number", "no."))
    both = json.loads(veobatch(tmp_path, *arguments, "--as-new").stdout)
    assert both["counts"]["done"] == 8  # those that left the manifest stay listed: they are paid for
