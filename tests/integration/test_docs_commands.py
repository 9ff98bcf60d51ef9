"""Every command of the pages, run in a fresh folder in the order in which a reader meets them.

A block that cannot be run here says why in a comment above it, `<!-- not run: ... -->`; of such a block the
commands and options are checked. `<!-- first: COMMAND -->` is what has to have happened before a block.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from pathlib import Path

import click
import pytest
import yaml

from pipeline.cli import cli
from pipeline.sandbox import Sandbox, SandboxOptions
from tests import forked_python

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/tutorial.md", "docs/sandbox.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "howto").glob("*.md"))
BLOCK = re.compile(
    r"(?:<!-- (?P<directive>not run|first): (?P<text>[^\n]*) -->\n\s*)?^ *```console\n(?P<body>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)
NAMED_MANIFEST = re.compile(r"Save this as `([\w.-]+)`:\n\n```yaml\n(.*?)```", re.DOTALL)
SHELL_SYNTAX = re.compile(r"[|&;<>*?$`~]")
SETUP = ("pip ", ".venv/bin/pip ", "python3 -m venv", ". .venv")
"""The environment of the tests stands for what these lines make."""


def commands_of(body: str) -> list[str]:
    lines = (line.strip() for line in body.splitlines())
    return [line[2:].partition("  #")[0].strip() for line in lines if line.startswith("$ ")]


def write_jobs(folder: Path) -> None:
    """Copy the examples; the night becomes a short one."""
    (folder / "jobs").mkdir()
    for path in (ROOT / "jobs").glob("*.yaml"):
        manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
        manifest["defaults"] = {**manifest.get("defaults", {}), "duration": 4, "resolution": "720p"}
        small = {"duration", "resolution"}
        jobs = [job for job in manifest["jobs"] if isinstance(job, dict)]
        jobs = [{key: job[key] for key in job if key not in small} for job in jobs]
        manifest["jobs"] = jobs if len(jobs) <= 3 else [jobs[0], *jobs[-2:]]
        (folder / "jobs" / path.name).write_text(yaml.safe_dump(manifest), encoding="utf-8")


def check_syntax(line: str) -> None:
    """Parse the `veobatch` commands of a line that is not run."""
    if line.startswith("docker "):
        return
    for part in re.split(r"\|+|&&|;", line):
        words = [word for word in shlex.split(part, comments=True) if word not in ("&", ">", "2>&1")]
        if words[:1] == ["sudo"] or "veobatch" not in (Path(word).name for word in words):
            continue
        start = next(i for i, word in enumerate(words) if Path(word).name == "veobatch")
        name, *arguments = words[start + 1 :]
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, line
        context = click.Context(command, info_name=name, resilient_parsing=True)
        command.make_parser(context).parse_args(arguments)


async def run_line(line: str, folder: Path, environ: dict[str, str]) -> tuple[int, str]:
    """Run a line as a shell would; a plain `veobatch` needs none, and no start of a Python either."""
    if line.startswith("veobatch ") and not SHELL_SYNTAX.search(line):
        words = hurried(shlex.split(line)[1:])
        done = await forked_python.run("-m", "pipeline", *words, cwd=folder, env=environ)
        return done.returncode, done.stdout + done.stderr
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", line),
        cwd=folder,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


def hurried(words: list[str]) -> list[str]:
    """Add what the script of `environment` adds to a run against the sandbox."""
    return [*words, "--sandbox-speed", "200"] if "--sandbox" in words else words


def environment(folder: Path, api_url: str) -> dict[str, str]:
    """Return an environment in which `veobatch` is this tree's and the API is the sandbox."""
    tools = folder / "tools"
    tools.mkdir()
    hurry = 'case " $* " in *" --sandbox "*) set -- "$@" --sandbox-speed 200;; esac'
    script = f'#!/bin/sh\n{hurry}\nexec {shlex.quote(sys.executable)} -m pipeline "$@"\n'
    (tools / "veobatch").write_text(script, encoding="utf-8")
    (tools / "veobatch").chmod(0o755)
    return {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder / "home"),
        "AIMLAPI_API_KEY": "from-the-docs",
        "AIMLAPI_API_BASE": api_url,
        "VEOBATCH_POLL_INTERVAL": "0.2",
    }


@pytest.mark.parametrize("page", PAGES)
async def test_a_pages_commands_work_in_order(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    write_jobs(tmp_path)
    for name, manifest in NAMED_MANIFEST.findall(text):
        (tmp_path / name).write_text(manifest, encoding="utf-8")
    options = SandboxOptions(speed=400, video="small", log_lag_s=0.0)
    async with Sandbox(options) as box:
        environ = environment(tmp_path, box.url)
        for block in BLOCK.finditer(text):
            if block["directive"] == "first":
                assert await run_line(block["text"], tmp_path, environ) == (0, "")
            for line in commands_of(block["body"]):
                if block["directive"] == "not run":
                    check_syntax(line)
                elif line.startswith("export "):
                    name, _, value = line.removeprefix("export ").partition("=")
                    environ |= {name: value} if value != "..." else {}
                elif not line.startswith(SETUP):
                    code, said = await run_line(line, tmp_path, environ)
                    assert code == 0, f"{page}: {line}\nexit {code}\n{said}"


def test_blocks_that_are_not_run_say_why() -> None:
    found: list[re.Match[str]] = []
    for page in PAGES:
        blocks = list(BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")))
        found += blocks
        assert all(len(block["text"]) > 5 for block in blocks if block["directive"])
    assert len(found) > 15
