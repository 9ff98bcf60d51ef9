"""Who works on one machine pays nothing for the others: neither Ray nor a database's driver is imported."""

from __future__ import annotations

import subprocess
import sys

IMPORT_CHECK = (
    "import sys; {}; heavy = {{'ray', 'psycopg', 'sqlalchemy', 'aiohttp', 'aiohttp.web', 'jinja2', 'av'}};"
    "print(' '.join(sorted(heavy & set(sys.modules))))"
)


def imported_by(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_CHECK.format(code)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_help_needs_none_of_them() -> None:
    assert imported_by("import pipeline.cli, pipeline.cli.run, pipeline.cli.status") == []


def test_a_run_on_one_machine_needs_no_ray() -> None:
    found = imported_by("import pipeline.cli.app, pipeline.cluster, pipeline.ledger.sqlite")
    assert "ray" not in found
    assert "psycopg" not in found


def test_a_run_begins_without_servers_templates_and_decoders() -> None:
    assert imported_by("import pipeline.cli.app") == ["aiohttp"]
