"""Runs that end before they begin: every channel says why, also without the optional packages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from junitparser import JUnitXml

from pipeline.ledger.lock import hold_lock
from pipeline.results.summary_json import summary_schema
from tests.integration.test_cli_start import veobatch

BLOCKED = "import sys\nsys.modules['apprise'] = None\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "night.yaml").write_text("- [https://example.com/a.jpg, She laughs.]\n")
    (tmp_path / "taken").write_text("a file where the folder should be")
    return tmp_path


def ci_environment(workspace: Path) -> dict[str, str]:
    """GitHub's variables, and an interpreter that has no apprise."""
    core = workspace / "core"
    core.mkdir(exist_ok=True)
    (core / "sitecustomize.py").write_text(BLOCKED)
    return {
        "PYTHONPATH": f"{core}{os.pathsep}{Path(__file__).parents[2]}",
        "GITHUB_ACTIONS": "true",
        "CI": "true",
        "GITHUB_WORKSPACE": str(workspace),
        "GITHUB_STEP_SUMMARY": str(workspace / "summary.md"),
        "GITHUB_OUTPUT": str(workspace / "outputs"),
    }


@pytest.mark.parametrize(
    ("arguments", "code", "reason", "cause"),
    [
        ([], 2, None, "AIMLAPI_API_KEY"),
        (["--sandbox", "--output", "taken"], 3, "disk", "taken"),
        (["--sandbox", "--output", "held"], 3, "ledger", "held"),
        (["--sandbox", "--ledger", "taken/x.sqlite3"], 3, "disk", "taken"),
        (["--sandbox", "--concurrency", "0"], 2, None, "concurrency"),
    ],
    ids=["key", "output", "lock", "ledger", "setting"],
)
def test_every_channel_says_why(
    workspace: Path, arguments: list[str], code: int, reason: str | None, cause: str
) -> None:
    (workspace / "held").mkdir()
    with hold_lock(workspace / "held", command="veobatch run night.yaml", started_at="2026-11-29T01:00:00Z"):
        ended = veobatch(
            workspace,
            "run",
            "night.yaml",
            "--json",
            "--junit",
            "j.xml",
            *arguments,
            **ci_environment(workspace),
        )
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    told = json.loads(ended.stdout)
    jsonschema.validate(told, summary_schema())
    assert (told["exit_code"], told["stopped_reason"]) == (code, reason)
    assert cause in told["message"]
    errors = re.findall(r"^::error file=night\.yaml,title=veobatch::(.*)$", ended.stderr, re.MULTILINE)
    assert len(errors) == 1
    assert cause in errors[0]
    document = JUnitXml.fromfile(str(workspace / "j.xml"))
    assert (document.tests, document.failures) == (1, 1)
    assert cause in (workspace / "summary.md").read_text().replace("\\", "")
    assert f"exit-code={code}\n" in (workspace / "outputs").read_text()


def test_an_option_that_does_not_exist_is_annotated(workspace: Path) -> None:
    ended = veobatch(workspace, "run", "night.yaml", "--no-such", **ci_environment(workspace))
    assert ended.returncode == 2
    assert "::error title=veobatch::No such option" in ended.stderr


def test_messages_need_their_package_and_say_how_to_get_it(workspace: Path) -> None:
    ended = subprocess.run(  # a start of its own: what is hidden must not have been imported before
        [
            sys.executable,
            "-m",
            "pipeline",
            *["run", "night.yaml", "--sandbox", "--notify", "json://localhost/secret"],
        ],
        cwd=workspace,
        env={"PATH": os.environ["PATH"], "HOME": str(workspace), **ci_environment(workspace)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert "pip install 'apprise" in ended.stderr
    assert "secret" not in ended.stderr


def test_two_runs_at_once_need_no_optional_package(workspace: Path) -> None:
    (workspace / "held").mkdir()
    with hold_lock(workspace / "held", command="veobatch run night.yaml", started_at="2026-11-29T01:00:00Z"):
        ended = veobatch(
            workspace,
            *("run", "night.yaml", "--sandbox", "--output", "held"),
            **ci_environment(workspace),
        )
    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stderr
