"""A process of its own that downloads rows until it is done or killed: `download_child FOLDER URL ROWS`."""

from __future__ import annotations

import sys

import anyio

from pipeline.download.download_result import Saved
from pipeline.download.downloader import Downloader
from pipeline.download.guarded_session import open_session
from pipeline.model import Record
from pipeline.storage import open_store


async def _main(output: str, url: str, rows: int) -> None:
    async def fetch(downloader: Downloader, number: int) -> None:
        stem = f"row-{number}"
        record = Record(stem, stem, "f", number, "m", "{}", "", "", file_stem=stem, video_url=url)
        outcome = await downloader.download(record, _no_fresh_url)
        assert isinstance(outcome, Saved), outcome

    async with open_session() as session, anyio.create_task_group() as tasks:
        downloader = Downloader(session=session, store=open_store(output))
        for number in range(rows):
            tasks.start_soon(fetch, downloader, number)


async def _no_fresh_url() -> list[str]:
    return []


if __name__ == "__main__":
    anyio.run(_main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
