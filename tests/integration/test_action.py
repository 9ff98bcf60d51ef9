"""The GitHub Action: its own `run` steps, carried out as a runner carries them out, against the sandbox."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


HOSTILE = "-two $(touch pwned) 'clips' \"x\"; `touch pwned` &.yaml"
"""A manifest's name that does harm wherever a shell reads it."""


class Runner:
    """Carries out a composite action's shell steps: expressions, environment files, working directory.

    Steps that use other actions set up what this machine has: a Python, and `output/` that is still there.
    """

    def __init__(self, workspace: Path, home: Path, inputs: dict[str, str]) -> None:
        self._workspace, self._home = workspace, home
        defaults = {name: spec.get("default", "") for name, spec in ACTION["inputs"].items()}
        self._values = {f"inputs.{name}": value for name, value in {**defaults, **inputs}.items()}
        self._values["github.action_path"] = str(ROOT)
        self.stderr = ""

    def run(self, **inputs: str) -> int:
        """Return the exit code of the first step that fails, else 0. Again: what is installed stays."""
        self._values |= {f"inputs.{name}": value for name, value in inputs.items()}
        for step in ACTION["runs"]["steps"]:
            installed = step.get("id") == "install" and "steps.install.outputs.veobatch" in self._values
            if "run" in step and not installed and (code := self._run_step(step)):
                return code
        return 0

    def outputs(self) -> dict[str, str]:
        return {name: self._expand(output["value"]) for name, output in ACTION["outputs"].items()}

    def _expand(self, text: str) -> str:
        return re.sub(r"\$\{\{\s*(.*?)\s*\}\}", lambda match: self._values.get(match[1], ""), text)

    def _run_step(self, step: dict[str, Any]) -> int:
        output_file = self._home / "github_output"
        output_file.write_text("")
        finished = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self._workspace,
            env=self._environment(step, output_file),
            capture_output=True,
            text=True,
            check=False,
        )
        self.stderr = finished.stdout + finished.stderr
        for name, value in re.findall(r"^([\w-]+)=(.*)$", output_file.read_text(), re.MULTILINE):
            self._values[f"steps.{step.get('id')}.outputs.{name}"] = value
        return finished.returncode

    def _environment(self, step: dict[str, Any], output_file: Path) -> dict[str, str]:
        return {
            "PATH": f"{self._home / 'python/bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self._home),
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(self._workspace),
            "GITHUB_OUTPUT": str(output_file),
            "GITHUB_STEP_SUMMARY": str(self._home / "summary.md"),
            "RUNNER_TEMP": str(self._home),
            # The packages are those of the tests' environment: nothing is fetched from an index.
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            **{name: self._expand(value) for name, value in step.get("env", {}).items()},
        }


def _provide_python(home: Path) -> None:
    """Make the Python that actions/setup-python would: whose new environments see the tests' packages."""
    venv.create(home / "python", with_pip=False, symlinks=True)
    packages = [path for path in sys.path if path and Path(path) != ROOT]
    wrapper = home / "python" / "bin" / "python"
    wrapper.unlink()
    wrapper.write_text(
        "#!/bin/sh\n"
        # pip is among those packages: a copy of it would take most of the test's time.
        'case "$*" in "-m venv "*) set -- -m venv --without-pip "$3";; esac\n'
        f'"{sys.executable}" "$@" || exit\n'
        f'for site in "{home}"/veobatch/lib/python*/site-packages; do\n'
        f'  echo "import sys; sys.path[:0] = {packages}" > "$site/packages.pth"\ndone\n'
    )
    wrapper.chmod(0o755)


def test_the_steps_run_a_manifest_and_continue_it_and_fail_with_its_code(
    tmp_path: Path,
) -> None:
    workspace, home = tmp_path / "workspace", tmp_path / "home"
    workspace.mkdir()
    home.mkdir()
    _provide_python(home)
    manifest = workspace / HOSTILE
    manifest.write_text(
        "- {id: one, image_url: 'https://example.com/a.jpg', prompt: A cat., duration: 4, resolution: 720p}\n"
        "- {id: two, image_url: 'https://example.com/b.jpg', prompt: A dog., duration: 4, resolution: 720p}\n"
    )
    inputs = {
        "manifest": manifest.name,
        "max-cost": "5",
        "args": "--sandbox --sandbox-speed 2000\n--name '{id} clip $(touch pwned)'",
    }

    runner = Runner(workspace, home, inputs)
    assert runner.run() == 0, runner.stderr
    outputs = runner.outputs()
    assert (outputs["done"], outputs["failed"], outputs["exit-code"]) == ("2", "0", "0")
    videos = workspace / outputs["videos"]
    made = {path.name: path.stat().st_mtime_ns for path in videos.iterdir()}
    assert set(made) == {f"{name}_clip__(touch_pwned).mp4" for name in ("one", "two")}
    assert (workspace / outputs["results"]).is_file()
    assert (workspace / outputs["report"]).is_file()
    assert "2" in (home / "summary.md").read_text(encoding="utf-8")

    assert runner.run() == 0, runner.stderr
    assert runner.outputs()["usd-spent"] == outputs["usd-spent"]
    assert {path.name: path.stat().st_mtime_ns for path in videos.iterdir()} == made

    assert runner.run(args="--sandbox --limit 1 --name 'open") == 1
    assert "::error title=veobatch::args: No closing quotation" in runner.stderr
    assert runner.run(manifest="--help", args="--sandbox ;touch pwned") == 2
    assert not list(tmp_path.rglob("*pwned"))

    assert runner.run(manifest="missing.yaml", args="") == 2
    assert "missing.yaml" in runner.stderr
    assert runner.outputs()["exit-code"] == "2"
