"""kill -9 in the middle of downloads: a file under its final name is whole, always."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from pathlib import Path

import pytest

from pipeline.storage.files import stamp_of
from tests.integration import faulty_file_hosts as hosts
from tests.integration.sample_videos import make_video, padded
from tests.integration.vendor_double.workspace import wait_until

ROWS = 4
VIDEO = padded(make_video(seconds=2), 12 * 2**20)
ROOT = Path(__file__).parents[2]


class SlowHost(hosts.FileHost):
    """Sends in pieces, `limit` of them in all, so that there is always something to interrupt."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.pieces = asyncio.Condition()
        self.count = 0
        self.limit = 10**9

    async def send_response(
        self,
        request: hosts.CdnRequest,
        status: int,
        headers: dict[str, str],
        body: bytes,
        *,
        cut: bool = False,
    ) -> None:
        await super().send_response(request, status, {"Content-Length": str(len(body))} | headers, b"")
        for start in range(0, len(body), 65536):
            request.writer.write(body[start : start + 65536])
            await request.writer.drain()
            self.sent_bytes += len(body[start : start + 65536])
            async with self.pieces:
                self.count += 1
                await self.pieces.wait_for(lambda: self.count < self.limit)

    async def raise_limit(self, limit: int) -> None:
        async with self.pieces:
            self.limit = limit
            self.pieces.notify_all()


def assert_files_whole(folder: Path) -> int:
    """Every file that has its final name is whole; returns how many there are."""
    found = list((folder / "videos").glob("*.mp4"))
    assert all(path.read_bytes() == VIDEO for path in found)
    return len(found)


def any_bytes_on_disk(folder: Path) -> bool:
    stamps = map(stamp_of, (folder / "videos").glob("*.veobatch-part"))
    return any(stamp is not None and stamp.size_bytes for stamp in stamps)


@pytest.mark.crash
@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_at_random_and_started_again_until_done(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    kills = 0
    async with SlowHost(VIDEO) as host:
        while True:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.integration.download_child",
                str(tmp_path),
                host.url,
                str(ROWS),
                cwd=ROOT,
            )
            await host.raise_limit(host.count + dice.randrange(150, 230) if kills < 3 else 10**9)
            if kills < 3:
                # Whatever came is written half a second later, also when no more comes.
                await wait_until(lambda: host.count >= host.limit and any_bytes_on_disk(tmp_path))
                child.send_signal(signal.SIGKILL)
                kills += 1
            code = await child.wait()
            whole = assert_files_whole(tmp_path)
            if code == 0:
                break
            assert code == -signal.SIGKILL
    assert whole == ROWS
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == [
        f"row-{n}.mp4" for n in range(ROWS)
    ]
    assert any(ask.first_byte for ask in host.requests)
    assert host.sent_bytes < ROWS * len(VIDEO) * 2
