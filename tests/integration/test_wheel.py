"""The wheel holds all that a run needs, and the sdist all that the wheel needs."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_the_example_runs_from_an_unpacked_wheel(dist: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")  # noqa: S202  our own archive
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import pipeline.__main__ as m; m.main()"
    )
    finished = subprocess.run(
        [sys.executable, "-P", "-c", program, "run", "--sandbox", "--sandbox-speed", "2000", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["counts"]["done"] == 6
    assert len(list((tmp_path / "output" / "example.sandbox" / "videos").glob("*.mp4"))) == 6


def test_the_wheel_holds_the_package_alone(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"pipeline", "veobatch"}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pipeline").rglob("*") if path.is_file()}
    wanted = {name for name in sources if "__pycache__" not in name}
    assert wanted <= names


def test_the_sdist_holds_what_the_wheel_is_built_from(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "pipeline/py.typed",
        "pipeline/manifest/example.yaml",
    } <= names
