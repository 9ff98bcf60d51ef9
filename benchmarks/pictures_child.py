"""The real command `veobatch`, in a process that notes how long rows with a slot waited for their pictures.

    python -m benchmarks.pictures_child NOTES run manifest.jsonl --base-url ...

NOTES is the file for one line of JSON at the end: the largest resident set (MB), how often a picture was
prepared, and for each picture of a submission when the row had its slot, and how long it waited (s).
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
from pipeline.images import delivery, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pipeline.images.prepared import Fit, Prepared
    from pipeline.manifest.local_files import LocalFile
    from pipeline.model import Record

BEGAN = time.monotonic()
WAITS: list[tuple[float, float]] = []
PREPARED: list[float] = []
SUBMITTING: ContextVar[list[float] | None] = ContextVar("SUBMITTING", default=None)


class TimedPictures(delivery.Pictures):
    """Notes for each row with a slot how long its pictures were not prepared yet."""

    @asynccontextmanager
    async def body(self, record: Record) -> AsyncIterator[str]:
        began, waits = time.monotonic(), [0.0]
        SUBMITTING.set(waits)
        async with super().body(record) as body:
            SUBMITTING.set(None)
            WAITS.append((round(began - BEGAN, 3), round(sum(waits), 4)))
            yield body

    async def _prepared(self, key: Any) -> Any:
        began = time.monotonic()
        found = await super()._prepared(key)
        if (waits := SUBMITTING.get()) is not None:
            waits.append(time.monotonic() - began)
        return found


prepare_picture = prepare.prepare


def timed_prepare(file: LocalFile, folder: Path, fit: Fit | None = None) -> Prepared:
    began = time.monotonic()
    found = prepare_picture(file, folder, fit)
    PREPARED.append(round(time.monotonic() - began, 3))
    return found


def main() -> None:
    notes = Path(sys.argv.pop(1))
    for module, name, timed in ((delivery, "Pictures", TimedPictures), (prepare, "prepare", timed_prepare)):
        setattr(module, name, timed)
    from pipeline.cli import main as veobatch

    try:
        veobatch()
    finally:
        notes.write_text(json.dumps({"peak_mb": peak_mb(), "waits": WAITS, "prepared_s": PREPARED}))


if __name__ == "__main__":
    main()
