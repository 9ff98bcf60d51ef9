"""The site of the documentation, built as `make docs` builds it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_build_fails_for_a_link_that_leads_nowhere_and_for_nothing_else(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / "sandbox.md").open("a", encoding="utf-8") as page:
        page.write("\n[nowhere](reference/command.md#nowhere)\n")
    (command,) = re.findall(r"\$\(BIN\)/mkdocs (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", *command.split()],
        cwd=tmp_path,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 1
    (warning,) = re.findall(r"^WARNING.*$", built.stderr, re.MULTILINE)
    assert "#nowhere" in warning
