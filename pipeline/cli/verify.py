"""`veobatch verify`: reads every saved file and compares it with the ledger."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from pipeline.batch.paths import existing_batch_paths
from pipeline.cli.options import ledger_options
from pipeline.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.batch.paths import BatchPaths, LedgerChoice
    from pipeline.download.verify import Checked
    from pipeline.model import Record
    from pipeline.storage import OutputStore


@click.command("verify")
@click.argument("target", metavar="MANIFEST|DIR")
@click.option(
    "--output", metavar="DIR|URL", help="Where the batch lives, when not in output/<manifest's name>."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@ledger_options
def command(target: str, output: str | None, ledger_choice: LedgerChoice, as_json: bool) -> int:
    """Read every saved video, and its receipt, and compare it with what was saved. Changes nothing.

    Exit codes: 0 all are intact, 1 some were altered, are missing or cannot be read. Videos that an earlier
    run already found moved away are listed and count as none of these.
    """
    import anyio

    return anyio.run(_verify, existing_batch_paths(target, output, ledger_choice), as_json)


async def _verify(paths: BatchPaths, as_json: bool) -> int:
    from pipeline.batch.ledger_access import open_read_only_ledger
    from pipeline.model import State
    from pipeline.results.receipts import META_NAME
    from pipeline.storage import open_store

    async with await open_read_only_ledger(paths) as ledger:
        done = [record for record in await ledger.load() if record.state is State.DONE and record.artifact]
        expected = await ledger.meta_get(META_NAME) is not None
    store = open_store(paths.output)
    try:
        found = await _check(store, done)
        receipts = await _check_receipts(store, done, expected=expected)
    finally:
        await store.aclose()
    result = _result(done, found) | receipts
    click.echo(json.dumps(result) if as_json else "\n".join(_lines(result)))
    bad = any(result[kind] for kind in ("altered", "missing", "unreadable", *receipts))
    return int(ExitCode.SOME_FAILED if bad else ExitCode.DONE)


async def _check(store: OutputStore, done: Sequence[Record]) -> list[Checked]:
    from tqdm import tqdm

    from pipeline.download.verify import check_saved

    total = sum(record.artifact.size_bytes for record in done if record.artifact)
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="verify", leave=False, disable=not sys.stderr.isatty()
    ) as bar:

        def on_checked(checked: Checked) -> None:
            artifact = checked.record.artifact
            bar.update(artifact.size_bytes if artifact else 0)

        return await check_saved(store, done, read_all=True, on_checked=on_checked)


async def _check_receipts(
    store: OutputStore, done: Sequence[Record], *, expected: bool
) -> dict[str, list[dict[str, str]]]:
    """Return the receipts that do not agree with the ledger, and those that are missing when `expected`."""
    from pipeline.results.receipts import differences, find_receipt, make_receipt
    from pipeline.results.run_log import Redactor

    bad: dict[str, list[dict[str, str]]] = {"receipt_altered": [], "receipt_missing": []}
    for record in done:
        if record.artifact is None or record.artifact.moved:
            continue
        path, data = await find_receipt(store, record.artifact)
        if data is None:
            bad["receipt_missing"] += [{"id": record.id, "path": path}] if expected else []
        elif differences(data, make_receipt(record, "", sandbox=False, redact=Redactor())):
            bad["receipt_altered"].append({"id": record.id, "path": path})
    return bad


def _result(done: Sequence[Record], found: Sequence[Checked]) -> dict[str, Any]:
    """What was found, for JSON and for people: counts, and the files that are not intact."""
    from pipeline.download.verify import FileCondition

    files: dict[str, list[dict[str, str]]] = {"altered": [], "missing": [], "moved": [], "unreadable": []}
    for checked in found:
        artifact = checked.record.artifact
        if artifact is None:
            continue
        found_file = {"id": checked.record.id, "path": artifact.path}
        if checked.condition is FileCondition.ALTERED:
            files["altered"].append(found_file)
        elif checked.condition is FileCondition.MOVED:
            files["moved" if artifact.moved else "missing"].append(found_file)
        elif checked.condition is FileCondition.UNREADABLE:
            files["unreadable"].append(found_file | {"error": checked.error})
    bad = sum(map(len, files.values()))
    return {"checked": len(done), "intact": len(done) - bad, **files}


def _lines(result: dict[str, Any]) -> list[str]:
    lines = [
        f"{kind.replace('_', ' ')}: {file['path']} ({file['id']})"
        for kind in ("altered", "missing", "moved", "receipt_altered", "receipt_missing")
        for file in result[kind]
    ]
    lines += [f"unreadable: {file['id']}: {file['error']}" for file in result["unreadable"]]
    counts = Counter({kind: len(result[kind]) for kind in ("altered", "missing", "moved", "unreadable")})
    parts = [f"{result['intact']} intact", *(f"{count} {kind}" for kind, count in counts.items() if count)]
    lines.append(f"{result['checked']} {'video' if result['checked'] == 1 else 'videos'}: {', '.join(parts)}")
    if result["altered"]:
        lines.append("Next: veobatch run fetches altered videos again and keeps the old file beside them")
    if result["missing"] or result["moved"]:
        lines.append("Next: veobatch run --fetch-missing downloads missing videos again")
    if result["receipt_altered"] or result["receipt_missing"]:
        lines.append("Next: veobatch run --receipts writes missing receipts again; remove altered ones first")
    return lines
