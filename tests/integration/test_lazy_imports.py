"""Who works on one machine pays nothing for the others: neither Ray nor a database's driver is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline.cli.run import no_pydantic_plugins
from pipeline.results import report

HEAVY = (
    "ray psycopg sqlalchemy aiohttp aiohttp.web jinja2 av PIL yaml tqdm obstore pandas apprise "
    "pipeline.results.report pipeline.cli.reporting.ci pipeline.cli.reporting.junit "
    "pipeline.cli.reporting.summary pipeline.runner.manifest_estimate"
)
IMPORT_CHECK = "import sys; {}; print(*sorted(set({!r}.split()) & set(sys.modules)))"
BEFORE_THE_FIRST_CREATE = (
    "import pipeline.cli.run, pipeline.cli.app, pipeline.cli.terminal_watcher, pipeline.runner.execute,"
    "pipeline.ledger.sqlite, pipeline.ledger.writer, pipeline.storage.local"
)


def imported_by(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_CHECK.format(code, HEAVY)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_help_needs_none_of_them() -> None:
    assert imported_by("import pipeline.cli, pipeline.cli.run, pipeline.cli.status") == []


def test_a_run_on_one_machine_needs_no_ray() -> None:
    found = imported_by("import pipeline.cli.app, pipeline.cluster, pipeline.ledger.sqlite")
    assert "ray" not in found
    assert "psycopg" not in found


@pytest.mark.parametrize("before", [None, "mine"])
def test_pydantic_looks_for_no_plugins_and_other_programs_keep_theirs(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "PYDANTIC_DISABLE_PLUGINS"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    with no_pydantic_plugins():
        assert os.environ[name] == "__all__"
    assert os.environ.get(name) == before


def test_the_last_page_of_a_run_finds_all_its_templates_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    report._environment.cache_clear()
    report.load_templates()
    monkeypatch.setattr("jinja2.Environment.compile", None)
    assert "<html" in report.render([], title="t", manifest="m.yaml", generated_at=0.0)


def test_nothing_is_imported_before_the_first_create_that_is_only_needed_later() -> None:
    """What makes the page, pictures, summaries and SQL is loaded once creates are on their way."""
    assert imported_by(BEFORE_THE_FIRST_CREATE) == ["aiohttp"]
