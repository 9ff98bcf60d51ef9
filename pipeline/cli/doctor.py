"""`veobatch doctor`: everything that a run needs, checked in seconds and without spending anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.batch.paths import batch_paths
from pipeline.cli.options import ledger_options
from pipeline.errors import ExitCode, VeobatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.batch.paths import BatchPaths, LedgerChoice
    from pipeline.client import ApiKey

    Check = Callable[[], str]


@click.command("doctor")
@click.argument("manifest", required=False, type=click.Path(path_type=Path))
@click.option("--output", metavar="DIR|URL", help="Where videos go.  [default: output/<manifest's name>]")
@click.option("--base-url", metavar="URL", help="The API's address.")
@ledger_options
def command(
    manifest: Path | None, output: str | None, base_url: str | None, ledger_choice: LedgerChoice
) -> int:
    """Check the network, the API's address, the key, the folder and the clock; with MANIFEST that, too.

    Spends and changes nothing. Exits with 0 when a run could start, else with the code that it would have.
    """
    paths = batch_paths(manifest or Path("manifest.yaml"), output, ledger_choice)
    code = ExitCode.DONE
    for name, check in _checks(manifest, paths, base_url):
        try:
            click.echo(f"{'ok':<5} {name:<9} {check()}")
        except VeobatchError as error:
            click.echo(f"{'FAIL':<5} {name:<9} {error}")
            code = code or error.exit_code
    return int(code)


def _checks(manifest: Path | None, paths: BatchPaths, base_url: str | None) -> Iterator[tuple[str, Check]]:
    from pipeline.runner.credentials import require_key

    if manifest is not None:
        yield "manifest", lambda: _check_manifest(manifest)
    yield "folder", lambda: _check_folder(paths, manifest)
    yield "files", _check_open_files

    def check_key() -> str:
        return f"read from {require_key(os.environ, hint='Get one at https://aimlapi.com.').source}"

    yield "key", check_key
    yield "API", lambda: _check_api(base_url)


def _check_manifest(manifest: Path) -> str:
    from pipeline.runner.manifest_loading import parse_manifest

    loaded = parse_manifest(manifest).checked()
    return f"{len(loaded.jobs):,} jobs, no problems"


def _check_folder(paths: BatchPaths, manifest: Path | None) -> str:
    from pipeline.batch.ownership import check_folder
    from pipeline.runner.preflight import check_writable, space_warning

    if manifest is not None:
        check_folder(paths, manifest, sandbox=False)
    check_writable(paths.folder)
    return space_warning(paths.folder) or f"{paths.folder} can be written"


def _check_open_files() -> str:
    from pipeline.runner.preflight import raise_open_file_limit

    return f"{raise_open_file_limit()} may be open at once"


def _check_api(base_url: str | None) -> str:
    import anyio

    from pipeline.client import normalize_base_url
    from pipeline.client.reachability import check_api
    from pipeline.runner.credentials import find_base_url, find_key
    from pipeline.runner.preflight import raise_obstacle

    url = normalize_base_url(find_base_url(base_url, os.environ))
    key: ApiKey | None = find_key(os.environ)
    found = anyio.run(check_api, url, key)
    warnings = raise_obstacle(found)
    balance = f", {found.balance_usd:,.2f} USD on the account" if found.balance_usd is not None else ""
    return "; ".join([f"{url} answers{balance}", *warnings])
