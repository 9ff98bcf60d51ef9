"""What the package exports, with its signatures: a change here is a change for other people's programs."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import pipeline
from docs.generate import command_of
from pipeline.batch.request import ClusterOptions
from pipeline.manifest.local_files import image_sha256
from pipeline.results.csv_rows import COLUMNS, csv_bytes
from pipeline.results.rows import ROW_FIELDS, row_of
from pipeline.runner.batch_options import BatchOptions, make_request
from pipeline.settings import Settings
from tests.unit.samples import record

OPTIONS = BatchOptions.__annotations__
STORED = Path(__file__).with_name("public_api.txt")


def described() -> str:
    """Return the public names, a line each, with the parameters of what can be called."""
    lines = []
    for name in sorted(pipeline.__all__):
        value = getattr(pipeline, name)
        if inspect.isfunction(value):
            lines.append(f"{name}{inspect.signature(value)}")
        elif value is BatchOptions:
            lines += [f"{name}.{option}: {kind.__forward_arg__}" for option, kind in sorted(OPTIONS.items())]
        elif is_dataclass(value):
            lines += [f"{name}.{field.name}: {field.type}" for field in fields(value)]
        elif inspect.isclass(value):
            lines += [f"{name}{inspect.signature(value)}"] if name == "Batch" else [name]
        if inspect.isclass(value) and not issubclass(value, dict):
            members = (
                item for item in vars(value).items() if callable(item[1]) or isinstance(item[1], property)
            )
            lines += [f"{name}.{key}{_signature(member)}" for key, member in members if key[0] != "_"]
    return "\n".join(lines) + "\n"


def _signature(member: object) -> str:
    function = getattr(member, "__func__", member)
    return str(inspect.signature(function)) if inspect.isfunction(function) else ""


def test_what_is_public_is_what_was_promised() -> None:
    assert described() == STORED.read_text(encoding="utf-8"), (
        "on purpose? then store it, and say so in CHANGELOG"
    )


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, typing; before = set(sys.modules); import pipeline; print(set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'pipeline'}"


def test_every_setting_is_an_option() -> None:
    assert Settings.model_fields.keys() <= BatchOptions.__annotations__.keys()


def test_every_option_of_the_command_is_one_of_a_program_or_about_the_terminal() -> None:
    command, context = command_of("run")
    names = {name for option in command.get_params(context) for name in option.opts if name[:2] == "--"}
    of_a_program = {f"--{name.replace('_', '-')}" for name in OPTIONS}
    about_the_terminal = "--serve --junit --notify --yes --json --quiet --verbose --help"
    of_a_folder = "--prompt --captions --recursive"
    assert names - of_a_program == {*about_the_terminal.split(), *of_a_folder.split(), "--no-media"}
    assert of_a_program - names == {"--api-key", "--media"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 2}, "engine='ray'"),
        ({"engine": "spark"}, "'local' or 'ray'"),
        ({"only": ("timeout",)}, "retry_failed"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(pipeline.UsageError, match=message):
        make_request("a.yaml", "x", options)


def test_a_program_may_ask_for_a_cluster() -> None:
    request = make_request("a.yaml", "x", {"engine": "ray", "workers": 3, "lease": 9.0, "retry_failed": True})
    assert request.cluster == ClusterOptions(3, None, 9.0)
    assert sorted(request.argv) == sorted(
        ["run", "a.yaml", "--engine", "ray", "--workers", "3", "--lease", "9.0", "--retry-failed"]
    )
    assert make_request("a.yaml", "x", {}).cluster is None


def test_a_row_has_the_columns_of_the_table() -> None:
    assert ROW_FIELDS == COLUMNS
    known = record(line=3, polls=2, usd_spent=1.25)
    row = row_of(known, sandbox=True)
    header, cells = csv_bytes([known], sandbox=True).decode().splitlines()
    for column, cell in zip(header.split(","), cells.split(","), strict=True):
        value = getattr(row, column)
        text = str(value).lower() if isinstance(value, bool) else str(value)
        assert cell == ("" if value in (None, ()) else text), column


def test_a_row_has_the_checksum_of_a_picture_from_the_disk() -> None:
    digest = "ab" * 32
    known = record(body=json.dumps({"image_url": f"sha256:{digest}"}, separators=(",", ":")))
    assert row_of(known).image_sha256 == image_sha256(known.body) == digest


def test_rows_made_in_code_are_a_manifest_with_a_line_each() -> None:
    request = make_request(
        [{"image_url": "https://e.com/a.jpg", "prompt": "p"}, ("u", "q")], "cats", {"output": "x"}
    )
    assert str(request.manifest) == "cats.json"
    assert request.data == b'[{"image_url": "https://e.com/a.jpg", "prompt": "p"},\n["u", "q"]]'
    assert (request.output, request.argv) == ("x", ())


def test_the_next_command_has_the_options_and_neither_the_key_nor_what_is_asked_each_time() -> None:
    shown = {"max_cost": 2.0, "media": False, "sandbox": True, "select": ("a*", "b")}
    options = {**shown, "api_key": "sk-1", "as_new": True, "verify": False}
    request = make_request("a b.yaml", "x", options)
    wanted = ["run", "a b.yaml", "--max-cost", "2.0", "--no-media", "--sandbox"]
    assert sorted(request.argv) == sorted([*wanted, "--select", "a*", "--select", "b"])
    assert "sk-1" not in repr(request)


def test_an_option_that_is_not_there_is_named() -> None:
    with pytest.raises(pipeline.UsageError, match="no option concurency"):
        make_request("a.yaml", "x", {"concurency": 3})
    with pytest.raises(AttributeError, match="Bach"):
        pipeline.Bach  # type: ignore[attr-defined] # noqa: B018
