"""The pages keep their word: links lead somewhere, manifests load, commands exist, tables are current."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from docs import generate
from pipeline import __version__
from pipeline.cli import COMMANDS
from pipeline.errors import ExitCode
from pipeline.manifest import load
from pipeline.results.csv_rows import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = generate.pages()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"`([^`\n]+)`")
SHELLS = frozenset({"console", "bash", "zsh", "fish", "cron"})
OTHERS_FLAGS = frozenset({"--check", "--help", "--version"})
"""Flags of other programs, and those that every command has."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, languages: frozenset[str]) -> Iterator[str]:
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if language in languages:
            yield text


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return what GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def known_flags(name: str) -> set[str]:
    command, context = generate.command_of(name)
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    return {flag for option in options for flag in (*option.opts, *option.secondary_opts)}


EVERY_FLAG = {flag for name in COMMANDS for flag in known_flags(name)} | OTHERS_FLAGS


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_generated_is_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert generate.rendered(text) == text, "run: python -m docs.generate"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("index", ["docs/README.md", "llms.txt", "mkdocs.yml"])
def test_every_page_is_found_from_the_indexes(index: str) -> None:
    text = (ROOT / index).read_text(encoding="utf-8")
    docs = ROOT / "docs"
    pages = {page.relative_to(docs).as_posix() for page in PAGES if page.is_relative_to(docs)}
    own = {"README.md", *(page for page in pages if page.startswith("decisions/"))}
    assert not {page for page in pages - own if page not in text}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_manifests_load(page: Path, tmp_path: Path) -> None:
    for text in blocks(page, frozenset({"yaml"})):
        if re.search(r"^(jobs|matrix|run|defaults):", text, re.MULTILINE) and "runs-on:" not in text:
            path = tmp_path / "manifest.yaml"
            path.write_text(text, encoding="utf-8")
            assert load(path).jobs


@pytest.mark.parametrize("language", ["csv", "jsonl"])
def test_bulk_manifests_load(language: str, tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "docs" / "reference" / "manifest.md", frozenset({language}))
    path = tmp_path / f"manifest.{language}"
    path.write_text(text, encoding="utf-8")
    manifest = load(path)
    assert (len(manifest.jobs), manifest.warnings) == (2, ())


def test_the_manual_s_matrix_has_as_many_rows_as_it_says(tmp_path: Path) -> None:
    page = ROOT / "docs" / "reference" / "manifest.md"
    (text,) = (block for block in blocks(page, frozenset({"yaml"})) if "matrix:" in block)
    path = tmp_path / "manifest.yaml"
    path.write_text(text, encoding="utf-8")
    assert len(load(path).jobs) == 1 + 2 * 2 * 2 - 2


def commands_in(text: str) -> Iterator[list[str]]:
    """Yield the words after `veobatch` of each call in a piece of shell."""
    for line in text.replace("\\\n", " ").splitlines():
        call = re.search(r"(?:^|\$ |&& |[A-Z]=\S+ |bin/)veobatch ([^#|;&>]+)", line)
        if call:
            yield shlex.split(call[1])


def check_call(words: list[str], text: str) -> None:
    if words[0] in OTHERS_FLAGS:
        return
    assert words[0] in COMMANDS, text
    known = known_flags(words[0]) | OTHERS_FLAGS
    for word in words[1:]:
        if re.match(r"--?[a-z]", word):
            assert word.partition("=")[0] in known, text
        if re.match(r"(output|jobs)/[a-z-]+\.yaml$", word):
            assert (ROOT / word).exists(), text


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_exist(page: Path) -> None:
    for text in blocks(page, SHELLS):
        for words in commands_in(text):
            check_call(words, text)
    for code in INLINE.findall(prose(page)):
        if code.startswith("veobatch ") and "@" not in code:
            for words in commands_in(code):
                check_call(words, code)
        elif code.startswith("--"):
            assert re.split(r"[ =]", code)[0] in EVERY_FLAG, code


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_targets_and_manifests_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    called = re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^\$ make ([a-z-]+)", text, re.MULTILINE)
    for target in called:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"\bjobs/[a-z-]+\.yaml\b", text):
        assert (ROOT / path).exists(), path


def table_under(page: Path, heading: str) -> list[list[str]]:
    """Return the body of the first table below a heading."""
    _, _, rest = page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    lines = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_readme_names_every_column() -> None:
    rows = table_under(ROOT / "README.md", "results.csv")
    named = [column for row in rows for column in INLINE.findall(row[0])]
    assert sorted(named) == sorted(COLUMNS)


def test_the_readme_names_every_exit_code() -> None:
    rows = table_under(ROOT / "README.md", "Exit codes")
    codes = [int(code) for row in rows for code in row[0].split(",")]
    assert codes == [int(code) for code in ExitCode]


def test_contributors_are_shown_every_room() -> None:
    rows = table_under(ROOT / "CONTRIBUTING.md", "The house")
    shown = [room.strip("/") for row in rows for room in INLINE.findall(row[1])]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    rooms = [room for layer in layers for room in layer.split(" | ")]
    assert sorted(shown) == sorted([*rooms, "sandbox"])


def test_modules_to_look_at_first_exist() -> None:
    rows = table_under(ROOT / "CONTRIBUTING.md", "Where to look first")
    named = [module for row in rows for module in INLINE.findall(row[1])]
    assert len(named) > len(rows) >= 8
    assert [module for module in named if not (ROOT / "pipeline" / module).is_file()] == []


@pytest.mark.parametrize(
    "way",
    [
        "`image_url`, from the manifest to the POST",
        "`generation_id`, from the create's answer to `results.csv`",
    ],
)
def test_the_way_of_a_value_is_short_and_leads_through_files_that_exist(way: str) -> None:
    page = ROOT / "docs" / "explanation" / "one-row.md"
    steps = [INLINE.findall(row[0]) for row in table_under(page, way)]
    named = [file for step in steps for file in step]
    assert 8 <= len(named) == len(steps) <= 12
    named += [name for name in INLINE.findall(page.read_text(encoding="utf-8")) if name.endswith(".py")]
    assert [name for name in named if not (ROOT / "pipeline" / name).is_file()] == []


def test_modules_that_decisions_name_exist() -> None:
    text = (ROOT / "docs" / "decisions" / "0015-a-folder-a-step.md").read_text(encoding="utf-8")
    rooms = [
        room for row in re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE) for room in INLINE.findall(row)
    ]
    assert len(rooms) >= 5
    for room in rooms:
        place = ROOT / "pipeline" / room
        assert place.is_dir() or place.with_suffix(".py").exists(), room


def test_the_changelog_has_this_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_pages_speak_of_the_project_alone() -> None:
    for page in PAGES:
        assert not re.search(r"/work/|/tmp/|/root/|#\d+\b(?!;)", prose(page)), name_of(page)
