"""`veobatch validate`: all problems of a manifest at once. Spends nothing, submits nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.cli.manifest_loading import LoadedManifest, ParsedManifest
    from pipeline.errors import VeobatchError
    from pipeline.manifest import ManifestProblems, Problem


_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json", ".jsonl", ".ndjson", ".csv", ".tsv"})


@click.command()
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One object on stdout, for editors and scripts.")
@click.option("--check-images", is_flag=True, help="Look at the head of every image: type, size, shape.")
@click.option("--allow-private-images", is_flag=True, help="Let --check-images go to private addresses.")
@click.option("--base-url", metavar="URL", help="The API, for models that are not built in.")
def command(
    manifests: tuple[Path, ...],
    as_json: bool,
    check_images: bool,
    allow_private_images: bool,
    base_url: str | None,
) -> int:
    """Find every problem of each MANIFEST, with its line and column; of a folder, of all in it.

    Exits with 0 when there is none and with 2 when there is one. Models other than
    google/veo-3.1-i2v-fast are checked against the vendor's catalog when it can be reached.
    """
    files = _manifest_files(manifests)
    results = [
        _validate(path, base_url, check_images, allow_private_images, as_json=as_json) for path in files
    ]
    if as_json:
        one = len(results) == 1 and manifests == tuple(files)
        _print(results[0] if one else {"ok": all(result["ok"] for result in results), "files": results})
    elif len(results) > 1:
        bad = sum(not result["ok"] for result in results)
        click.echo(f"{len(results)} manifests, {bad or 'none'} with problems")
    return 0 if all(result["ok"] for result in results) else 2


def _manifest_files(named: Sequence[Path]) -> list[Path]:
    """Return the files to check: those that are named, and the manifests of folders, hidden ones left out."""
    from pipeline.errors import UsageError

    files: list[Path] = []
    for path in named:
        inside = _folder_manifests(path) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"{path} holds no manifest ({', '.join(sorted(_SUFFIXES))})")
        files += inside
    return list(dict.fromkeys(files))


def _folder_manifests(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES
        and not path.name.endswith(".schema.json")
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _validate(
    path: Path, base_url: str | None, check_images: bool, allow_private: bool, *, as_json: bool
) -> dict[str, Any]:
    """Check one manifest; report it to people on stderr, and return what `--json` prints."""
    from pipeline.manifest import ManifestProblems

    try:
        loaded = _load(path, base_url, check_images, allow_private)
    except ManifestProblems as found:
        _print_problems(path, found)
        return {
            "ok": False,
            "file": str(path),
            "count": found.count,
            "problems": problems_json(found.problems),
        }
    return _print_valid(loaded, as_json=as_json)


def _load(path: Path, base_url: str | None, check_images: bool, allow_private: bool) -> LoadedManifest:
    """Load the manifest; the network is touched (and its libraries imported) only when it is needed."""
    from pipeline.cli.manifest_loading import parse_manifest

    parsed = parse_manifest(path)
    if not parsed.other_models and (parsed.manifest is None or not check_images):
        return parsed.to_loaded()
    import anyio

    return anyio.run(_load_online, parsed, base_url, check_images, allow_private)


async def _load_online(
    parsed: ParsedManifest, base_url: str | None, check_images: bool, allow_private: bool
) -> LoadedManifest:
    import os

    import aiohttp

    from pipeline.cli.credentials import find_base_url
    from pipeline.cli.manifest_loading import cache_dir, check_manifest_images, check_with_catalogue
    from pipeline.client.catalog import Catalog
    from pipeline.client.client import USER_AGENT, normalize_base_url

    url = normalize_base_url(find_base_url(base_url, os.environ))
    async with aiohttp.ClientSession(headers={"User-Agent": USER_AGENT}) as session:
        loaded = await check_with_catalogue(parsed, Catalog(session, url, cache_dir(), timeout_s=5.0))
    return await check_manifest_images(loaded, allow_private) if check_images else loaded


def _print_problems(path: Path, found: ManifestProblems) -> None:
    click.echo(format_problems(found.problems, found.count, colour=use_colour(sys.stderr)), err=True)
    click.echo(_closing_line(path, found), err=True)
    annotate_on_github(found)


def _closing_line(path: Path, found: ManifestProblems) -> str:
    problems = f"{found.count:,} problem{'' if found.count == 1 else 's'}"
    rows = f" in {found.rows:,} row{'' if found.rows == 1 else 's'}" if found.rows else ""
    return f"{path}: {problems}{rows}; nothing was submitted"


def _print_valid(loaded: LoadedManifest, *, as_json: bool) -> dict[str, Any]:
    manifest = loaded.manifest
    if manifest.warnings:
        colour = use_colour(sys.stderr)
        text = format_problems(manifest.warnings, len(manifest.warnings), colour=colour, label="warning")
        click.echo(text, err=True)
    for note in loaded.notes:
        click.echo(f"note: {note}", err=True)
    jobs = f"{len(manifest.jobs):,} job{'' if len(manifest.jobs) == 1 else 's'}"
    if not as_json:
        click.echo(f"{manifest.path}: {jobs}, no problems")
    return {
        "ok": True,
        "file": str(manifest.path),
        "rows": len(manifest.jobs),
        "models": sorted({job.model for job in manifest.jobs}),
        "count": 0,
        "problems": [],
        "warnings": problems_json(manifest.warnings),
        "notes": list(loaded.notes),
    }


def _print(value: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(value, ensure_ascii=True))


_MAX_SOURCE_CHARS: Final = 100
_MAX_CHARS: Final = 4_000
_CARET_CONTEXT_CHARS: Final = 40
"""How much of a long line is shown before the caret."""


def use_colour(stream: TextIO) -> bool:
    """Say whether `stream` is a terminal whose user has not asked for plain text (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def format_problems(problems: Sequence[Problem], count: int, *, colour: bool, label: str = "error") -> str:
    """Return all problems as text of at most 4,000 characters, ending in how many were left out."""
    from pipeline.manifest.problems import join_limited

    if not colour:
        lines = [f"{problem.place}: {label}: {problem.text}" for problem in problems]
        return join_limited(lines, count, _MAX_CHARS)
    sources = _source_lines(problems)
    return _join_up_to_limit(
        [_format_in_colour(problem, sources.get(problem.line, ""), label) for problem in problems], count
    )


def error_text(error: VeobatchError) -> str:
    """Return an error's message; a manifest's problems as `validate` shows them, each at its place."""
    from pipeline.manifest import ManifestProblems

    if isinstance(error, ManifestProblems):
        annotate_on_github(error)
        return format_problems(error.problems, error.count, colour=use_colour(sys.stderr))
    return f"veobatch: {error}"


def annotate_on_github(found: ManifestProblems) -> None:
    """On GitHub Actions, mark every problem at its line."""
    from pipeline.cli.ci import on_github, problem_lines

    if on_github(os.environ):
        for line in problem_lines(found.problems, found.count):
            click.echo(line, err=True)


def problems_json(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """Return problems as objects that an editor can place."""
    return [
        {
            "file": problem.file,
            "line": problem.line,
            "column": problem.column,
            "what": problem.what,
            "why": problem.why,
            "instead": problem.instead,
            "message": str(problem),
        }
        for problem in problems
    ]


def _join_up_to_limit(blocks: list[str], count: int) -> str:
    """Join whole blocks while they fit: half a colour code would colour the rest of the terminal."""
    shown: list[str] = []
    used = len(f"... and {count} more")
    for block in blocks:
        used += len(block) + 1
        if used > _MAX_CHARS:
            break
        shown.append(block)
    left = count - len(shown)
    return "\n".join([*shown, f"... and {left} more"] if left else shown)


def _source_lines(problems: Iterable[Problem]) -> dict[int, str]:
    """Return the lines that problems point at; none when the file cannot be read as text."""
    wanted = {problem.line: problem.file for problem in problems}
    lines: dict[int, str] = {}
    try:
        for file in set(wanted.values()):
            if not Path(file).is_file():
                continue
            with open(file, encoding="utf-8-sig", newline="\n") as stream:  # noqa: PTH123 - a Problem holds text
                for number, line in enumerate(stream, 1):
                    if number in wanted:
                        lines[number] = line.rstrip("\r\n")
    except (OSError, ValueError):
        return {}
    return lines


def _format_in_colour(problem: Problem, source: str, label: str) -> str:
    from pipeline.manifest.problems import escape_unprintable

    location = click.style(f"{escape_unprintable(problem.file)}:{problem.line}:{problem.column}:", bold=True)
    colour = "red" if label == "error" else "yellow"
    head = f"{location} {click.style(f'{label}:', fg=colour, bold=True)} {problem.what}"
    parts = [_wrapped(f"{head}: {problem.why}" if problem.why else head)]
    if source.strip():
        cut = max(0, problem.column - 1 - _CARET_CONTEXT_CHARS) if len(source) > _MAX_SOURCE_CHARS else 0
        shown = escape_unprintable(source[cut : cut + _MAX_SOURCE_CHARS].replace("\t", " "))
        gutter = f"{problem.line:>5} | "
        caret = " " * (len(gutter) + problem.column - 1 - cut) + "^"
        parts += [click.style(gutter, fg="blue") + shown, click.style(caret, fg=colour, bold=True)]
    if problem.instead:
        parts.append(click.style(_wrapped(f"      = {problem.instead}", "        "), fg="green"))
    return "\n".join(parts)


def _wrapped(text: str, indent: str = "    ") -> str:
    """Break a long line between words, never inside one, at the terminal's width."""
    import shutil
    import textwrap

    width = max(40, shutil.get_terminal_size().columns)
    return textwrap.fill(
        text,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        initial_indent="",
    )
