"""`validate`, `estimate` and `schema` as they are called: exit codes, streams, JSON, terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys
import termios
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, NoReturn

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from pipeline.cli import cli
from pipeline.errors import UsageError
from pipeline.manifest import ManifestProblems, load
from tests.unit.manifest_mistakes import MISTAKES, ROW, Mistake
from tests.unit.pictures import ODD_HEADERS, odd_picture, write_picture

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[..., Result]

IMAGE = "https://example.com/cat.jpg"
ROOT = Path(__file__).parents[2]
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))
KEYS = ("AIMLAPI_API_KEY", "AIML_API_KEY", "AIMLAPI_KEY", "AIMLAPI_API_BASE", "AIML_API_BASE")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Call the command in this process, where a request to anywhere fails the test."""

    def refuse(*_: Any) -> NoReturn:
        pytest.fail("a request was made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments, standalone_mode=False)

    return call


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_broken_manifest_is_refused(call: Call, mistake: Mistake, tmp_path: Path) -> None:
    path = tmp_path / f"batch{mistake.suffix}"
    path.write_bytes(mistake.content)
    result = call("validate", str(path))
    assert result.exception is None
    assert result.return_value == 2
    assert result.stderr.startswith(f"{path}:{mistake.position}: ")
    assert len(result.output) <= 4_200
    assert result.stdout == ""


def test_json_holds_every_problem_for_editors(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    path.write_text(ROW + "    duration: 7\n    promt: x\n")
    result = call("validate", str(path), "--json")
    assert result.return_value == 2
    answer = json.loads(result.stdout)
    assert not answer["ok"]
    assert [(p["line"], p["column"], p["what"]) for p in answer["problems"]] == [
        (4, 15, "duration is 7"),
        (5, 5, 'unknown field "promt"'),
    ]
    assert answer["problems"][1]["instead"] == "did you mean `prompt`?"


def test_a_manifest_that_holds(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    path.write_text(ROW)
    plain, asked = call("validate", str(path)), call("validate", str(path), "--json")
    assert (plain.return_value, plain.stdout) == (0, f"{path}: 1 job, no problems\n")
    assert asked.return_value == 0
    assert json.loads(asked.stdout)["rows"] == 1


def test_another_model_without_a_catalogue_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "batch.yaml"
    path.write_text("- {model: other/t2v, prompt: x, params: {seed: 1}}\n")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        result = CliRunner().invoke(cli, ["validate", str(path), "--base-url", base], standalone_mode=False)
    assert result.return_value == 0
    assert "not checked" in result.stderr
    assert "the catalogue" in result.stderr


def test_on_a_terminal_the_line_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    path.write_text(ROW + "    aspect_ratio: 16:9\n")
    shown = on_a_terminal(path, {})
    assert "\x1b[" in shown
    bare = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "    4 |     aspect_ratio: 16:9" in bare
    caret = next(line for line in bare.splitlines() if line.strip() == "^")
    assert caret.index("^") == len("    4 | ") + 18
    assert "\x1b[" not in on_a_terminal(path, {"NO_COLOR": "1"})


def test_a_piped_problem_is_one_line_and_a_terminal_breaks_it_between_words(
    call: Call, tmp_path: Path
) -> None:
    path = tmp_path / "batch.yaml"
    path.write_text(
        'run: {max_cost: "$50"}\njobs:\n  - image_url: https://example.com/a.jpg\n    colour: red\n'
    )
    result = call("validate", str(path))
    *problems, closing = result.stderr.splitlines()
    assert closing.endswith("3 problems in 1 row; nothing was submitted")
    assert all(re.match(rf"{path}:\d+:\d+: error: \S", problem) for problem in problems), problems
    assert problems[0].endswith("write max_cost: 50")
    assert any(len(problem) > 80 for problem in problems), "nothing would have to be broken"
    coloured = on_a_terminal(path.relative_to(tmp_path), {}, folder=tmp_path, columns=80)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert 70 < max(map(len, shown.splitlines())) <= 80
    words = " ".join(problems).replace(f"{path}", path.name).replace(";", "").split()
    assert set(words) <= set(shown.replace(";", "").split()), "a word was broken, or is missing"


def test_warnings_are_shown_beside_problems(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    path.write_text('- [http://localhost/a.jpg, "x"]\n- [https://example.com/a.jpg, ""]\n')
    result = call("validate", str(path))
    assert result.return_value == 2
    assert f"{path}:1:4: warning: image_url is on localhost" in result.stderr
    (warning,) = json.loads(call("validate", str(path), "--json").stdout)["warnings"]
    assert warning["line"] == 1
    run = call("run", str(path), "--sandbox")
    assert (run.return_value, run.stderr) == (2, result.stderr), "run tells the same as validate"


def test_the_page_for_the_night_says_what_a_closed_terminal_does() -> None:
    page = (ROOT / "docs/howto/overnight.md").read_text()
    assert all(word in page for word in ("SIGHUP", "tmux", "nohup", "systemd-run"))


def on_a_terminal(path: Path, environ: dict[str, str], *, folder: Path = ROOT, columns: int = 100) -> str:
    """Return what `validate` writes to a terminal."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (40, columns))
    command = [sys.executable, "-m", "pipeline", "validate", str(path)]
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm"} | environ
    env |= {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, stderr=follower, stdout=follower, check=False)
    os.close(follower)
    assert done.returncode == 2
    shown = b""
    try:
        while piece := os.read(leader, 65536):
            shown += piece
    except OSError:
        pass  # Linux ends a terminal that nobody writes to with an error
    os.close(leader)
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_the_examples_hold_and_name_the_schema(path: Path) -> None:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named is not None
    published = json.loads((path.parent / named[1]).read_text(encoding="utf-8"))
    validator(published).validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert load(path).jobs


def test_the_published_schema_is_the_printed_one(call: Call) -> None:
    printed = call("schema").stdout
    assert printed == (ROOT / "jobs" / "manifest.schema.json").read_text(encoding="utf-8")
    jsonschema.Draft202012Validator.check_schema(json.loads(printed))


def validator(schema: Any) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema)


GOOD = [
    [["https://a.b/c", "x"]],
    {"jobs": [{"image_url": "https://a.b/c", "prompt": "x", "provider": "Google", "duration": 4}]},
    {"defaults": {"duration": 4}, "vars": None, "matrix": {"images": ["https://a.b/c"], "prompts": ["x"]}},
    {"run": {"concurrency": 3, "max_cost": 5, "timeout": 3.5}, "jobs": [["https://a.b/c", "x"]]},
    {"version": 1, "jobs": [{"model": "other/x", "prompt": "x", "params": {"seed": [1, None]}}]},
    {"jobs": [{"id": "a", "image_url": "HTTP://a.b", "prompt": " x "}]},
]
BAD: list[Any] = [
    [],
    "x",
    {},
    {"jobs": []},
    {"jobs": [["x"]]},
    {"jobs": [["a", "b", "c"]]},
    {"jobs": [["", "x"]]},
    {"jobs": [{"image_url": "https://a.b/c", "prompt": " "}]},
    {"jobs": [{"image_url": "https://a.b/c", "prompt": "x", "duration": 5}]},
    {"jobs": [{"image_url": "https://a.b/c", "prompt": "x", "duration": "8"}]},
    {"jobs": [{"image_url": "https://a.b/c", "prompt": "x", "provider": "goggle"}]},
    {"jobs": [{"image_url": "https://a.b/c", "prompt": "x", "generate_audio": "yes"}]},
    {"jobs": [{"image_url": "https://a.b/c", "promt": "x"}]},
    {"jobs": [{"image_url": "https://a.b/c", "prompt": "x", "params": {"x": 1}}]},
    {"jobs": [{"id": 3, "image_url": "https://a.b/c", "prompt": "x"}]},
    {"job": [["https://a.b/c", "x"]]},
    {"version": 2, "jobs": [["https://a.b/c", "x"]]},
    {"run": {"concurrency": 0}, "jobs": [["https://a.b/c", "x"]]},
    {"run": {"concurency": 3}, "jobs": [["https://a.b/c", "x"]]},
    {"vars": {"a": 1}, "jobs": [["https://a.b/c", "x"]]},
    {"jobs": [{"model": "other/x", "seed": 1}]},
]


@pytest.mark.parametrize(("manifest", "holds"), [(m, True) for m in GOOD] + [(m, False) for m in BAD])
def test_schema_and_validator_agree(call: Call, manifest: Any, holds: bool, tmp_path: Path) -> None:
    schema = json.loads(call("schema").stdout)
    path = tmp_path / "batch.json"
    path.write_text(json.dumps(manifest))
    assert validator(schema).is_valid(manifest) is holds
    try:
        load(path)
    except ManifestProblems:
        assert not holds
    else:
        assert holds


@pytest.mark.parametrize("command", ["validate", "estimate", "schema"])
def test_help_is_there(call: Call, command: str) -> None:
    assert call(command, "--help").exit_code == 0


def test_many_files_and_folders_are_checked_in_one_go(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "good.yaml").write_text(f"- [{IMAGE}, x]\n")
    (folder / "bad.csv").write_text(f"Image URL, prompt ,duration\n{IMAGE},x,5\n,y,4\n")
    (folder / "manifest.schema.json").write_text("{}")
    (folder / "notes.md").write_text("no manifest")
    alone = tmp_path / "alone.jsonl"
    alone.write_text(f'{{"image_url": "{IMAGE}", "prompt": "x"}}\n')
    done = call("validate", str(folder), str(alone), "--json")
    told = json.loads(done.stdout)
    assert done.return_value == 2
    assert [(Path(one["file"]).name, one["ok"]) for one in told["files"]] == [
        ("bad.csv", False),
        ("good.yaml", True),
        ("alone.jsonl", True),
    ]
    assert "bad.csv:2:" in done.stderr
    assert "2 problems in 2 rows" in done.stderr


def test_a_folder_without_a_manifest_is_an_error(call: Call, tmp_path: Path) -> None:
    error = call("validate", str(tmp_path)).exception
    assert isinstance(error, UsageError)
    assert "holds no manifest" in str(error)


def test_json_lines_under_a_name_of_yaml_are_read(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    path.write_text(f'{{"image_url": "{IMAGE}", "prompt": "x"}}\n{{"image_url": "{IMAGE}", "prompt": "y"}}\n')
    assert call("validate", str(path)).stdout == f"{path}: 2 jobs, no problems\n"


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "manifest"
    os.mkfifo(pipe)
    text = f'[{{"image_url": "{IMAGE}", "prompt": "x", "model": "some/other-model"}}]'
    writer = Thread(target=pipe.write_text, args=(text,))
    writer.start()
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "validate", str(pipe), "--base-url", "http://127.0.0.1:9"],
        capture_output=True,
        text=True,
        check=False,
    )
    writer.join()
    assert (done.returncode, done.stdout) == (0, f"{pipe}: 1 job, no problems\n")


def test_pictures_that_are_none_are_refused_with_their_lines_beside_other_problems(
    call: Call, tmp_path: Path
) -> None:
    (tmp_path / "page.jpg").write_bytes(b"<!doctype html><p>log in</p>")
    (tmp_path / "empty.jpg").touch()
    write_picture(tmp_path / "good.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:-500])
    rows = [f"  - {{image: {name}, prompt: x}}" for name in ("page.jpg", "empty.jpg", "cut.jpg", "none.jpg")]
    path = tmp_path / "batch.yaml"
    path.write_text("\n".join(["jobs:", *rows, "  - {image: good.jpg, prompt: x}", ""]))
    result = call("validate", str(path))
    assert result.return_value == 2
    for line, words in ((2, "a web page"), (3, "is empty"), (4, "cut short"), (5, "no such file")):
        [found] = [text for text in result.stderr.splitlines() if text.startswith(f"{path}:{line}:")]
        assert words in found
    assert "4 problems in 4 rows" in result.stderr


@pytest.mark.parametrize("name", ODD_HEADERS)
def test_a_picture_that_its_decoder_does_not_expect_is_refused_at_its_line(
    call: Call, name: str, tmp_path: Path
) -> None:
    (tmp_path / "odd.jpg").write_bytes(odd_picture(name))
    write_picture(tmp_path / "good.jpg")
    path = tmp_path / "batch.yaml"
    path.write_text("jobs:\n  - {image: good.jpg, prompt: x}\n  - {image: odd.jpg, prompt: x}\n")
    result = call("validate", str(path))
    assert result.return_value == 2, result
    assert f'{path}:3:5: error: image "odd.jpg": it' in result.stderr
    assert "good.jpg" not in result.stderr


def test_a_proxy_that_cannot_be_used_for_images_is_named(tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    path.write_text("jobs:\n  - {image: 'https://images.vendor.test/a.png', prompt: x}\n")
    options = ("--check-images", "--base-url", "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "validate", str(path), *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "https_proxy": "socks5://127.0.0.1:1080", "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "https_proxy names a socks5:// proxy; only http:// and https:// ones can be used" in done.stderr
