"""What the pages give to be copied works: units, workflow, completion, pictures; decisions are complete."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from PIL import Image

from docs import generate

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
UNITS = sorted((DOCS / "systemd").iterdir())
VEOBATCH = [sys.executable, "-m", "pipeline"]
_TEXTS = {".py", ".md", ".html", ".js", ".css", ".yml", ".yaml"}


def unit(name: str) -> configparser.RawConfigParser:
    parsed = configparser.RawConfigParser(strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]  # how configparser is told to keep case
    parsed.read_string((DOCS / "systemd" / name).read_text(encoding="utf-8"))
    return parsed


def test_the_service_goes_on_after_a_resumable_end_only() -> None:
    service = unit("veobatch@.service")["Service"]
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"].split() == ["1", "2"]
    assert service["SuccessExitStatus"] == "143"


def test_the_service_calls_a_command_that_exists() -> None:
    words = unit("veobatch@.service")["Service"]["ExecStart"].split()
    assert words[0].endswith("/bin/veobatch")
    command, _ = generate.command_of(words[1])
    assert command.name == "run"


def test_the_service_has_a_state_folder_that_it_may_write_and_that_is_kept() -> None:
    service = unit("veobatch@.service")["Service"]
    variables = dict(pair.split("=", 1) for pair in service["Environment"].split())
    assert variables["XDG_STATE_HOME"] == f"/var/lib/{service['StateDirectory']}"
    assert variables["XDG_CACHE_HOME"] == f"/var/cache/{service['CacheDirectory']}"


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """The one check that needs systemd's own tool; where there is none, the tests above have to do."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        return
    for path in UNITS:
        text = path.read_text(encoding="utf-8").replace("/srv/veobatch/.venv/bin/veobatch", sys.executable)
        (tmp_path / path.name.replace("@", "@overnight")).write_text(text, encoding="utf-8")
    units = sorted(str(path) for path in tmp_path.iterdir())
    checked = subprocess.run([tool, "verify", *units], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def workflow() -> dict[str, Any]:
    parsed: dict[Any, Any] = yaml.safe_load((DOCS / "ci" / "veobatch.yml").read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in parsed.items()}


def test_a_pull_request_gets_no_key_and_spends_nothing() -> None:
    jobs = workflow()["jobs"]
    assert "pull_request" in workflow()["on"]
    assert "secrets." not in str(jobs["validate"])
    assert jobs["run"]["if"].startswith("github.event_name != 'pull_request' && ")
    assert "veobatch run" not in str(jobs["validate"])


def test_a_run_finds_the_last_ledger_and_leaves_its_own() -> None:
    steps = workflow()["jobs"]["run"]["steps"]
    uses = [step.get("uses", step.get("run", "")).partition("@")[0] for step in steps]
    restored, saved = uses.index("actions/cache/restore"), uses.index("actions/cache/save")
    ran = next(n for n, step in enumerate(uses) if step.startswith("veobatch run"))
    assert restored < ran < saved
    assert steps[saved]["if"] == "always()"
    assert steps[restored]["with"]["key"].startswith(steps[restored]["with"]["restore-keys"])
    assert steps[restored]["with"]["path"] == steps[saved]["with"]["path"] == "output"
    assert workflow()["jobs"]["run"]["concurrency"]["cancel-in-progress"] is False


def completed(**variables: str) -> str:
    environ = os.environ | variables
    done = subprocess.run(VEOBATCH, env=environ, capture_output=True, text=True, check=False, timeout=600)
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_given_its_script(shell: str) -> None:
    page = (DOCS / "howto" / "completion.md").read_text(encoding="utf-8")
    assert f"_VEOBATCH_COMPLETE={shell}_source veobatch" in page
    script = completed(_VEOBATCH_COMPLETE=f"{shell}_source")
    assert f"_VEOBATCH_COMPLETE={shell}_complete" in script
    assert "complet" in script.splitlines()[-1] or "compdef" in script


@pytest.mark.parametrize(
    ("typed", "number", "found"),
    [("veobatch sa", 1, "plain,sandbox"), ("veobatch run --max-c", 2, "plain,--max-cost")],
)
def test_words_are_completed(typed: str, number: int, found: str) -> None:
    told = completed(_VEOBATCH_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=str(number))
    assert told.splitlines() == [found]


def test_the_recording_shows_the_run_to_its_end() -> None:
    path = DOCS / "pictures" / "run.svg"
    words = "\n".join(text.text or "" for text in ElementTree.parse(path).iter() if text.tag.endswith("text"))  # noqa: S314 - our own file
    assert "$ veobatch run --sandbox" in words
    assert "All 6 videos are saved." in words
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize("name", ["report.png", "night.png"])
def test_screenshots_are_small(name: str) -> None:
    path = DOCS / "pictures" / name
    with Image.open(path) as picture:
        assert picture.width >= 1000
    assert path.stat().st_size < 200_000


def test_decisions_are_numbered_and_listed() -> None:
    folder = DOCS / "decisions"
    pages = sorted(path.name for path in folder.glob("0*.md"))
    listed = re.findall(r"^\d+\. \[.+\]\((.+)\)$", (folder / "README.md").read_text("utf-8"), re.MULTILINE)
    assert listed == pages
    for number, name in enumerate(pages, 1):
        assert name.startswith(f"{number:04d}-")
        assert (folder / name).read_text(encoding="utf-8").startswith(f"# {number}. ")


def test_every_dependency_says_what_it_replaced() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(need for name in extras if name not in ("dev", "dist", "core-test") for need in extras[name]),
    ]
    names = {re.split(r"[\[<>=!~; ]", need)[0] for need in wanted} - {"veobatch"}
    told = (DOCS / "decisions" / "README.md").read_text(encoding="utf-8")
    missing = {name for name in names if not re.search(rf"^\| {re.escape(name)}\b", told, re.MULTILINE)}
    assert not missing


def test_the_package_is_tried_with_every_extra_and_both_ends_of_every_range() -> None:
    """`make dist-check` installs them; here only what it installs is compared."""
    script = (ROOT / ".ci" / "dist-check").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (everything,) = project["optional-dependencies"]["all"]
    names = everything.removeprefix("veobatch[").removesuffix("]").replace(",", " ")
    assert f"for extra in '' {names} all; do" in script
    assert "for resolution in lowest-direct highest; do" in script
    assert "pip compile" in script  # of a wheel, lowest-direct would take the newest of what that needs


def test_a_meaning_too_few_or_too_many_is_refused() -> None:
    with pytest.raises(SystemExit, match="meanings differ"):
        generate.meanings(["new"], {})
    with pytest.raises(SystemExit, match="meanings differ"):
        generate.meanings([], {"old": "gone"})


@pytest.mark.parametrize(
    "riddle",
    [
        "before anything is learned", "spent where they pay", "waits for the next run",
        "time left not known", "not delivered is said", "Not every end can be told", "come to stand",
        "colour nowhere", "Let images lie", "may stand in them", "not yet noticed", "pace of looks",
    ],
)  # fmt: skip
def test_a_sentence_that_engineers_had_to_read_twice_stays_gone(riddle: str) -> None:
    texts = [ROOT / name for name in ("README.md", "CHANGELOG.md", "action.yml")]
    for folder in ("pipeline", "docs", "jobs", "benchmarks"):
        texts += [path for path in (ROOT / folder).rglob("*") if path.suffix in _TEXTS]
    assert len(texts) > 300
    assert [path for path in texts if riddle in path.read_text(encoding="utf-8")] == []
