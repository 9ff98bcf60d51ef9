"""What a large batch waits for: 100,000 rows of which a few are new, to the first create and at the end.

    python -m benchmarks.live_many                          100,000 rows, 10 of them new, JSON Lines
    python -m benchmarks.live_many --form csv --rows 20000 --new 20000

The other rows are done: their steps are in the ledger, their videos and posters in the folder. Prints one
line of JSON a form.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from benchmarks.live import HERE, TIMEOUT_S, children_cpu_s, run_server, temp_folder, veobatch_command
from benchmarks.live_ends import import_cpu_s
from pipeline.ledger import Ledger
from pipeline.manifest import load
from pipeline.model import Artifact, Media, Record, State, Transition
from pipeline.plan import make_plan
from pipeline.results.csv_writer import ResultsWriter
from pipeline.storage import LocalStore
from pipeline.submit.submission_journal import (
    NOTED_META,
    append_to_journal,
    begin_journal,
    encode_entry,
    journal_path,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FORMS: Final = ("jsonl", "csv", "yaml")
STEPS_AT_ONCE: Final = 5_000
COMMIT_TIME: Final = 1.79e9
RENDER_S: Final = "5"
"""A vendor takes a minute; the page of the rows that are done is made meanwhile."""

MEDIA: Final = Media(4.0, 1280, 720, 24.0, True, "h264", "aac", ())


def write_manifest(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows in the form that the suffix of `path` names."""
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".csv":
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        elif path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            file.write("jobs:\n")
            file.writelines(_yaml_row(row) for row in rows)


def _yaml_row(row: dict[str, Any]) -> str:
    return "  - " + "    ".join(f"{name}: {json.dumps(value)}\n" for name, value in row.items())


async def finish_rows(manifest: Path, output: Path, state: Path, count: int) -> None:
    """Make a ledger and files as a run leaves them that has ended with the first `count` rows.

    `state` is where this machine remembers its ledgers.
    """
    for name in ("videos", "posters"):
        (output / name).mkdir(parents=True)
    records = make_plan(load(manifest).jobs[:count], []).added
    async with await Ledger.open(output / "ledger.sqlite3") as ledger:
        await ledger.meta_set("vendor", "api")
        await ledger.meta_set("manifest", json.dumps(str(manifest)))
        await ledger.add(records)
        for start in range(0, count, STEPS_AT_ONCE):
            block = records[start : start + STEPS_AT_ONCE]
            await ledger.commit_many([step for record in block for step in _steps(record, output)])
        await _write_results(ledger, output)
        await _note_submissions(ledger, state / "veobatch")


async def _note_submissions(ledger: Ledger, state: Path) -> None:
    path = state / "ledgers" / journal_path(ledger.identity).name
    name = f"{COMMIT_TIME}+0"
    begin_journal(path, name)
    size = append_to_journal(path, [encode_entry(record) for record in await ledger.load()])
    await ledger.meta_set(NOTED_META, f"{name} {size}")


async def _write_results(ledger: Ledger, output: Path) -> None:
    writer = ResultsWriter(LocalStore(output), title="many", manifest="many", ledger=ledger)
    records = await ledger.load()
    await writer.begin(records)
    await writer.finish(records)


def _steps(record: Record, output: Path) -> Iterator[Transition]:
    """Yield the four steps of a row that was made and saved."""
    states = (
        (State.SUBMITTING, {"submission_no": 1, "correlation_id": f"vb.0123456789.{record.id}.0123456789.1"}),
        (State.GENERATING, {"attempts": 1, "generation_id": f"812dcc2d-05ba-4ea4-{record.id}:google/veo"}),
        (State.READY, {"video_url": f"https://cdn.example.com/{record.id}.mp4", "polls": 3}),
        (State.DONE, {"artifact": _artifact(record, output), "usd_spent": 0.6, "credits_used": 1.2e5}),
    )
    times: dict[str, float] = {}
    for number, (state, changes) in enumerate(states):
        name = ("submitted_at", "accepted_at", "finished_at", "downloaded_at")[number]
        times[name] = COMMIT_TIME + record.position + 20.0 * number
        after = record.evolve(state, **changes, **times)
        yield Transition(record, after)
        record = after


def _artifact(record: Record, output: Path) -> Artifact:
    name, poster = f"videos/{record.file_stem}.mp4", f"posters/{record.file_stem}.jpg"
    (output / name).write_bytes(b"0" * 64)
    (output / poster).write_bytes(b"0" * 64)
    sha256 = f"{record.position:064x}"
    return Artifact(name, 64, sha256, MEDIA, poster, mtime_ns=(output / name).stat().st_mtime_ns)


def measure(form: str, rows: int, new: int) -> dict[str, float | int | str]:
    """Run such a batch; return seconds, CPU and peak memory at both ends."""
    with temp_folder() as folder, run_server("live_minimal_server", RENDER_S) as server:
        words, environ = veobatch_command(folder, server.url, rows, "--concurrency", "240")
        lines = (folder / "manifest.jsonl").read_text().splitlines()
        manifest = folder / f"manifest.{form}"
        write_manifest(manifest, [json.loads(line) for line in lines])
        words[1] = str(manifest)
        asyncio.run(finish_rows(manifest, folder / "output", folder / "state", rows - new))
        before, began = children_cpu_s(), time.time()
        with subprocess.Popen(
            [sys.executable, "-m", "pipeline", *words, "--poll-interval", "0.5", "--downloads", "16"],
            stdout=subprocess.DEVNULL,
            cwd=HERE.parent,
            env=environ,
        ) as process:
            server.stats(process.pid)
            assert process.wait(TIMEOUT_S) == 0
        ended, spent = time.time(), children_cpu_s() - before
        seen = server.stats()
    first, last = seen["first_create"], seen["last_video"]
    return {
        "form": form, "rows": rows, "new": new, "import_cpu_s": import_cpu_s(),
        "start_s": first[0] - began, "start_cpu_s": first[1], "start_peak_mb": first[2],
        "end_s": ended - last[0], "end_cpu_s": spent - last[1], "end_peak_mb": last[2],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--new", type=int, default=10)
    parser.add_argument("--form", choices=FORMS, nargs="+", default=["jsonl"])
    asked = parser.parse_args()
    for form in asked.form:
        print(json.dumps(measure(form, asked.rows, asked.new)), flush=True)


if __name__ == "__main__":
    main()
