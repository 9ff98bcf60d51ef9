"""The Dockerfile's steps, carried out in a bare folder that has nothing of the clone but what is copied."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
BUILD, FINAL = re.split(r"^FROM .*$", DOCKERFILE, flags=re.MULTILINE)[1:]


def copy_context(sources: list[str], target: Path) -> None:
    """Copy what COPY would: only what .dockerignore lets into the context."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    for source in sources:
        assert source in allowed, f"{source} is not in the build's context"
        path = ROOT / source
        if path.is_dir():
            shutil.copytree(path, target / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, target / source)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the build stage copies and installs; the other packages are those of the tests' environment."""
    folder = tmp_path_factory.mktemp("image")
    source, target = folder / "src", folder / "opt"
    source.mkdir()
    for line in re.findall(r"^COPY (?!--)(.+)$", BUILD, re.MULTILINE):
        copy_context(line.split()[:-1], source)
    requirement = re.search(r"pip install .*'\.(\[[a-z,]+\])'", BUILD)
    assert requirement is not None
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
    ]
    finished = subprocess.run(
        [*pip, "--target", str(target), f"{source}{requirement[1]}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return target


def test_the_entry_point_runs_the_example_where_only_work_and_tmp_can_be_written(
    built: Path, tmp_path: Path
) -> None:
    work, temporary = tmp_path / "work", tmp_path / "tmp"
    work.mkdir()
    temporary.mkdir()
    for folder in (built, *built.rglob("*")):
        folder.chmod(folder.stat().st_mode & ~0o222)
    places = {"tmp": str(temporary), "work": str(work)}
    environ = {
        name: re.sub("^/(tmp|work)", lambda match: places[match[1]], value)
        for name, value in image_environment().items()
    }
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    finished = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline", "run", "--sandbox", "--sandbox-speed", "2000", "--json"],
        cwd=work,
        env={**environ, "PATH": os.environ["PATH"], "PYTHONPATH": str(built), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["counts"]["done"] == 6
    assert len(list(work.glob(".state/**/*.submissions.jsonl"))) == 1, "notes that are kept with the work"
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == before


def image_environment() -> dict[str, str]:
    match = re.search(r"^ENV (.+)$", FINAL, re.MULTILINE)
    assert match is not None
    return dict(pair.split("=", 1) for pair in match[1].split())


def test_the_image_is_not_of_root_and_names_commands_that_exist() -> None:
    user = re.search(r"^USER (\d+)$", FINAL, re.MULTILINE)
    assert user is not None
    assert int(user[1]) > 0
    assert json.loads(re.findall(r"^ENTRYPOINT (.+)$", FINAL, re.MULTILINE)[0]) == ["veobatch"]
    check = re.search(r"^HEALTHCHECK .*CMD (\[.+\])$", FINAL, re.MULTILINE)
    assert check is not None
    module = json.loads(check[1])[2]
    assert (ROOT / (module.replace(".", "/") + ".py")).is_file()
