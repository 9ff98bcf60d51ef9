"""A damaged copy that plays is kept, whatever comes after it: in that round, a later one, or after a kill."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pipeline.download.download_result import Deferred, InvalidVideo, Saved
from pipeline.errors import StoreError
from pipeline.storage.local_staging import LocalStagedFile
from tests.integration import faulty_file_hosts as hosts
from tests.integration.sample_videos import corrupted
from tests.integration.test_download_faults import VIDEO, download_harness, raise_store_error

if TYPE_CHECKING:
    from pathlib import Path


class SendsInTurn(hosts.FileHost):
    """Sends one body after the other, the last for ever; None is a 404."""

    def __init__(self, *bodies: bytes | None) -> None:
        super().__init__(VIDEO)
        self.bodies = list(bodies)

    async def handle(self, ask: hosts.CdnRequest) -> None:
        body = self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]
        await self.send_response(ask, 404 if body is None else 200, {}, body or b"gone")


PLAYS, HALF, TEXT = corrupted(VIDEO), VIDEO[: len(VIDEO) // 2], b"upstream connect error; reset reason\n" * 9


async def test_a_copy_that_plays_is_kept_when_only_half_the_film_comes_after_it(tmp_path: Path) -> None:
    async with SendsInTurn(PLAYS, HALF) as host, download_harness(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert it.video() == PLAYS
    assert any("frames" in warning for warning in outcome.artifact.warnings)
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]


@pytest.mark.parametrize("noted", [True, False], ids=["now", "by an earlier version"])
@pytest.mark.parametrize("last", [None, HALF], ids=["gone", "half"])
@pytest.mark.parametrize("worse", [HALF, TEXT], ids=["half", "text"])
async def test_a_copy_that_plays_is_kept_when_a_later_round_brings_worse(
    tmp_path: Path, worse: bytes, last: bytes | None, noted: bool
) -> None:
    async with (
        SendsInTurn(PLAYS, None) as first,
        SendsInTurn(worse, None) as second,
        SendsInTurn(worse) as third,
        SendsInTurn(last) as fourth,
        download_harness(tmp_path) as it,
    ):
        assert isinstance(await it.fetch(first.url, final=False), Deferred)
        if not noted:
            forget_what_plays(tmp_path)
        for host in (second, third):
            assert isinstance(await it.fetch(host.url, final=False), Deferred)
            assert (tmp_path / "videos/row.veobatch-part.aside").read_bytes() == PLAYS
        outcome = await it.fetch(fourth.url)
    assert isinstance(outcome, Saved)
    assert it.video() == PLAYS
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]


@pytest.mark.parametrize("noted", [True, False], ids=["now", "by an earlier version"])
async def test_a_copy_that_does_not_play_gives_way_to_any_that_comes(tmp_path: Path, noted: bool) -> None:
    async with (
        SendsInTurn(TEXT, None) as first,
        SendsInTurn(PLAYS, None) as second,
        download_harness(tmp_path) as it,
    ):
        assert isinstance(await it.fetch(first.url, final=False), Deferred)
        if not noted:
            forget_what_plays(tmp_path)
        outcome = await it.fetch(second.url)
    assert isinstance(outcome, Saved)
    assert it.video() == PLAYS


async def test_what_an_earlier_version_kept_and_does_not_play_is_no_video_in_the_end(tmp_path: Path) -> None:
    async with (
        SendsInTurn(TEXT, None) as first,
        SendsInTurn(HALF) as second,
        download_harness(tmp_path) as it,
    ):
        assert isinstance(await it.fetch(first.url, final=False), Deferred)
        forget_what_plays(tmp_path)
        assert isinstance(await it.fetch(second.url), Deferred)  # what lies there was looked at
        outcome = await it.fetch(second.url)
    assert isinstance(outcome, InvalidVideo)
    assert it.files() == ["videos/row.incomplete.mp4"]


async def test_half_a_transfer_is_not_dropped_for_a_copy_that_does_not_play(tmp_path: Path) -> None:
    class TextThenDown(hosts.FileHost):
        async def handle(self, ask: hosts.CdnRequest) -> None:
            if len(self.requests) == 1:
                await self.send_response(ask, 200, {}, TEXT)
            elif len(self.requests) == 2:
                await self.serve_file(ask, max_bytes=len(HALF))
            else:
                await self.send_response(ask, 503, {}, b"")

    async with TextThenDown(VIDEO) as host, download_harness(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Deferred)
    assert (tmp_path / "videos/row.veobatch-part").read_bytes() == HALF


async def test_a_copy_that_plays_outlives_a_kill_before_it_got_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has named no length, so that what was fetched does not show by itself to be whole."""

    class Unmeasured(SendsInTurn):
        async def send_response(
            self,
            ask: hosts.CdnRequest,
            status: int,
            headers: dict[str, str],
            body: bytes,
            *,
            cut: bool = False,
        ) -> None:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            await super().send_response(
                ask, status, {"Transfer-Encoding": "chunked"} | headers, body, cut=cut
            )

    async with (
        Unmeasured(PLAYS, None) as first,
        Unmeasured(HALF) as second,
        download_harness(tmp_path) as it,
    ):
        with monkeypatch.context() as killed:
            killed.setattr(LocalStagedFile, "publish", raise_store_error)
            with pytest.raises(StoreError):
                await it.fetch(first.url)
        outcome = await it.fetch(second.url)
    assert isinstance(outcome, Saved)
    assert it.video() == PLAYS


def forget_what_plays(folder: Path) -> None:
    """Leave the note of a copy as earlier versions wrote it."""
    path = folder / "videos/row.veobatch-part.whose"
    boot, tag = path.read_text().split("\n")
    note = json.loads(tag)
    del note["plays"]
    path.write_text(f"{boot}\n{json.dumps(note)}")
