"""The built-in example, which is run where `run --sandbox` is given no manifest."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

import pipeline
from pipeline.cli import cli

ROOT = Path(__file__).parents[2]


def test_the_example_is_the_manifest_of_make_run() -> None:
    built_in = Path(pipeline.__file__).parent / "manifest" / "example.yaml"
    assert built_in.read_bytes() == (ROOT / "jobs" / "quick.yaml").read_bytes()


def test_without_the_sandbox_a_manifest_has_to_be_named() -> None:
    result = CliRunner().invoke(cli, ["run"])
    assert result.exit_code == 2
    assert "veobatch run --sandbox" in result.output
