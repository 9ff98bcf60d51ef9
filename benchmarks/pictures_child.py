"""The real command `veobatch`, in a process that notes how long rows with a slot waited for their pictures.

    python -m benchmarks.pictures_child NOTES run manifest.jsonl --base-url ...

NOTES is a file that gets a line of JSON for each submission: the largest resident set so far (MB), how long
each picture took to prepare since the last line, when the row had its slot, and how long it waited (s).
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.live_child import peak_mb
from pipeline.images import delivery, normalize

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pipeline.images.prepared import Fit, Prepared
    from pipeline.manifest.local_files import LocalFile
    from pipeline.model import Record

BEGAN = time.monotonic()
PREPARED: list[float] = []
NOTES: list[Path] = []
SUBMITTING: ContextVar[list[float] | None] = ContextVar("SUBMITTING", default=None)


class TimedPictures(delivery.Pictures):
    """Notes for each row with a slot how long its pictures were not prepared yet."""

    @asynccontextmanager
    async def body(self, record: Record) -> AsyncIterator[str]:
        began, waits = time.monotonic(), [0.0]
        SUBMITTING.set(waits)
        async with super().body(record) as body:
            SUBMITTING.set(None)
            note(began - BEGAN, sum(waits))
            yield body

    async def _prepared(self, key: Any) -> Any:
        began = time.monotonic()
        found = await super()._prepared(key)
        if (waits := SUBMITTING.get()) is not None:
            waits.append(time.monotonic() - began)
        return found


def note(began_s: float, waited_s: float) -> None:
    prepared = [PREPARED.pop() for _ in range(len(PREPARED))]
    line = {"peak_mb": peak_mb(), "prepared_s": prepared, "wait": [round(began_s, 3), round(waited_s, 4)]}
    with NOTES[0].open("a") as file:
        file.write(json.dumps(line) + "\n")


prepare_picture = normalize.prepare


def timed_prepare(file: LocalFile, folder: Path, fit: Fit | None = None) -> Prepared:
    began = time.monotonic()
    found = prepare_picture(file, folder, fit)
    PREPARED.append(round(time.monotonic() - began, 3))
    return found


def main() -> None:
    NOTES.append(Path(sys.argv.pop(1)))
    for module, name, timed in ((delivery, "Pictures", TimedPictures), (normalize, "prepare", timed_prepare)):
        setattr(module, name, timed)
    from pipeline.cli import main as veobatch

    veobatch()


if __name__ == "__main__":
    main()
