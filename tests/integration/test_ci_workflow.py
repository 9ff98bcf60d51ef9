"""The workflow of the docs finds the manifests that changed, by the shell script that is in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

WORKFLOW = Path(__file__).parents[2] / "docs" / "ci" / "veobatch.yml"
MANIFEST = "- [https://example.com/a.jpg, She laughs.]\n"


def steps(job: str) -> list[dict[str, Any]]:
    parsed: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = parsed["jobs"][job]["steps"]
    return found


def git(repository: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.strip()


def commit(repository: Path, **files: str) -> str:
    for name, text in files.items():
        (repository / "jobs" / f"{name}.yaml").write_text(text)
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "x")
    return git(repository, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    git(tmp_path, "init", "-q")
    (tmp_path / "jobs" / "readme.md").write_text("no manifest")
    return tmp_path


def changed(repository: Path, *, before: str = "", manifest: str = "") -> list[str]:
    """Run the script as GitHub does; return its output `manifests`."""
    script = next(step["run"] for step in steps("validate") if step.get("id") == "changed")
    output = repository / "github-output"
    python = repository.parent / "bin"
    python.mkdir(exist_ok=True)
    (python / "python").unlink(missing_ok=True)
    (python / "python").symlink_to(sys.executable)
    environ = {
        "PATH": f"{python}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_OUTPUT": str(output),
        "BEFORE": before,
        "MANIFEST": manifest,
    }
    subprocess.run(["bash", "-e", "-c", script], cwd=repository, env=environ, check=True)
    found: list[str] = json.loads(output.read_text().partition("manifests=")[2])
    output.unlink()
    return found


def test_only_what_changed_is_found(repository: Path) -> None:
    before = commit(repository, same=MANIFEST, edited=MANIFEST, gone=MANIFEST)
    (repository / "jobs" / "gone.yaml").unlink()
    commit(repository, edited=MANIFEST * 2, **{"new one": MANIFEST})
    assert changed(repository, before=before) == ["jobs/edited.yaml", "jobs/new one.yaml"]


def test_a_new_branch_has_all_and_a_hand_names_one(repository: Path) -> None:
    commit(repository, a=MANIFEST, b=MANIFEST)
    assert changed(repository, before="0" * 40) == ["jobs/a.yaml", "jobs/b.yaml"]
    assert changed(repository, manifest="jobs/b.yaml") == ["jobs/b.yaml"]


def test_nothing_changed_is_an_empty_list(repository: Path) -> None:
    before = commit(repository, a=MANIFEST)
    assert changed(repository, before=before) == []


def test_a_second_attempt_retries_failed_rows() -> None:
    run = next(step for step in steps("run") if step.get("id") == "veobatch")
    assert "github.run_attempt > 1" in run["env"]["RETRY"]
    assert run["run"].endswith("$RETRY")
