"""How much a finished batch that is run again reads: none of its clips, in a few seconds.

    python -m benchmarks.finished_batch                      300 clips of 8 MiB
    python -m benchmarks.finished_batch --clips 10000

The clips are sparse files with a ledger that calls them done. Prints one line of JSON: seconds, the process's
CPU seconds with its start (those another program cannot lengthen), clips opened, bytes read by the process in
all (`rchar` of /proc/self/io, its imports included) and their share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.ledger import Ledger
from pipeline.manifest import load
from pipeline.model import Artifact, State
from pipeline.plan import make_plan

if TYPE_CHECKING:
    from pipeline.model import Record

IMAGE: Final = "https://example.com/image.jpg"
COUNTING_COMMAND: Final = """
import json, os, sys, time
opened = []
def hook(name, args):
    if name == "open" and str(args[0]).endswith(".mp4"):
        opened.append(args[0])
sys.addaudithook(hook)
began = time.perf_counter()
from pipeline.cli import cli
code = cli.main(["run", "batch.json"], standalone_mode=False)
seconds, times = time.perf_counter() - began, os.times()
read = int(open("/proc/self/io").read().split("rchar:")[1].split()[0])
found = {"code": code, "seconds": round(seconds, 2), "cpu_seconds": round(times.user + times.system, 2)}
print(json.dumps({**found, "opened": len(opened), "read_bytes": read}))
"""


async def build(folder: Path, clips: int, clip_bytes: int) -> None:
    """Make `batch.json` in `folder`, and `output/batch` with a ledger that calls all its rows done."""
    jobs = [{"id": f"clip-{n}", "image_url": IMAGE, "prompt": f"take {n}"} for n in range(clips)]
    path, output = folder / "batch.json", folder / "output" / "batch"
    path.write_text(json.dumps({"jobs": jobs}), encoding="utf-8")
    (output / "videos").mkdir(parents=True)
    records = make_plan(load(path).jobs, []).added
    async with await Ledger.open(output / "ledger.sqlite3") as ledger:
        await ledger.meta_set("vendor", "api")
        await ledger.meta_set("manifest", json.dumps(str(path)))
        await ledger.add([_saved(record, output, clip_bytes) for record in records])


def _saved(record: Record, output: Path, clip_bytes: int) -> Record:
    name = f"videos/{record.file_stem}.mp4"
    with (output / name).open("wb") as file:
        file.truncate(clip_bytes)
    artifact = Artifact(name, clip_bytes, "0" * 64, mtime_ns=(output / name).stat().st_mtime_ns)
    return replace(record, state=State.DONE, generation_id=f"g-{record.id}", artifact=artifact)


def measure(folder: Path) -> dict[str, Any]:
    """Run the batch again in a process of its own, with no vendor to be reached; return what it counted."""
    environ = {
        **os.environ,
        "AIMLAPI_API_KEY": "k",
        "AIMLAPI_API_BASE": "http://127.0.0.1:9",
        "HOME": str(folder),
    }
    environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-c", COUNTING_COMMAND]
    done = subprocess.run(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--mib", type=float, default=8.0, help="the size of a clip")
    options = parser.parse_args()
    clip_bytes = int(options.mib * 2**20)
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(build(Path(name), options.clips, clip_bytes))
        found = measure(Path(name))
    share = found["read_bytes"] / (options.clips * clip_bytes)
    print(json.dumps({"clips": options.clips, "clip_bytes": clip_bytes, **found, "share": round(share, 4)}))


if __name__ == "__main__":
    main()
