"""Who works on one machine pays nothing for the others: neither Ray nor a database's driver is imported."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "ray psycopg sqlalchemy aiohttp aiohttp.web jinja2 av PIL yaml tqdm obstore pandas apprise "
    "pipeline.results.report pipeline.cli.ends.ci pipeline.cli.ends.junit pipeline.cli.ends.summary "
    "pipeline.runner.estimate"
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


def test_nothing_is_imported_before_the_first_create_that_is_only_needed_later() -> None:
    """What makes the page, pictures, summaries and SQL is loaded once creates are on their way."""
    assert imported_by(BEFORE_THE_FIRST_CREATE) == ["aiohttp"]
