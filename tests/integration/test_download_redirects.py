"""Where a download may be led, with real sockets and names that resolve to whatever a test says."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from pipeline.download.download_result import Deferred, Saved
from pipeline.download.downloader import Downloader
from pipeline.download.guarded_session import open_session
from pipeline.download.redirects import ForbiddenUrl, first_hop, next_hop, redacted
from pipeline.download.resumable_get import Unreachable, open_body
from pipeline.download.retry_state import DownloadLimits
from pipeline.net.address_guard import Zone
from pipeline.storage import open_store
from tests.integration import faulty_file_hosts as hosts
from tests.integration.ports import free_port
from tests.integration.sample_videos import make_video
from tests.integration.test_download_faults import PATIENT_LIMITS, DownloadHarness, download_harness

if TYPE_CHECKING:
    from pathlib import Path

VIDEO = make_video(seconds=2)


class FakeResolver(AbstractResolver):
    """Resolves every name to what the test says, each time to the next of it."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.resolve_calls = list(answers), 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = self.answers[min(self.resolve_calls, len(self.answers) - 1)]
        self.resolve_calls += 1
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in found
        ]

    async def close(self) -> None:
        pass


async def test_a_few_redirects_on_this_machine_are_followed(tmp_path: Path) -> None:
    async with (
        hosts.Redirects(VIDEO) as last,
        hosts.Redirects(VIDEO) as first,
        download_harness(tmp_path) as it,
    ):
        first.target = f"http://127.0.0.1:{last.port}/elsewhere"
        last.target = "/film.mp4?real"
        outcome = await it.fetch(first.url)
    assert isinstance(outcome, Saved)
    assert it.video() == VIDEO
    assert all("authorization" not in ask.headers for ask in first.requests + last.requests)


MALFORMED = [
    "http://127.0.0.1:99999/film.mp4",
    "https://cdn.example:0/film.mp4",
    f"https://{'a' * 64}.example/film.mp4",
    "https://cdn..example/film.mp4",
    "https://.../film.mp4",
    f"https://{'a.' * 200}example/film.mp4",
    "https://[::1/film.mp4",
    "https://ex\u00adample.com/film.mp4",
    "https://xn--a/film.mp4",
]
FORBIDDEN_TARGETS = {
    "link-local": "http://169.254.169.254/latest/meta-data",
    "link-local https": "https://169.254.169.254/latest/meta-data",
    "private": "https://10.0.0.1/film.mp4",
    "private http": "http://192.168.1.1/film.mp4",
    "mapped": "https://[::ffff:10.0.0.1]/film.mp4",
    "mapped metadata": "https://[::ffff:169.254.169.254]/film.mp4",
    "unique local": "https://[fd00::1]/film.mp4",
    "nat64": "https://[64:ff9b::a00:1]/film.mp4",
    "unspecified": "http://0.0.0.0/film.mp4",
    "plain http": "http://example.com/film.mp4",
    "a file": "file:///etc/passwd",
    "ftp": "ftp://127.0.0.1/film.mp4",
    "no host": "https:///film.mp4",
    "no URL": "http://[",
    **{url[:40]: url for url in MALFORMED},
    "nothing": "",
}


@pytest.mark.parametrize("place", FORBIDDEN_TARGETS.values(), ids=FORBIDDEN_TARGETS.keys())
async def test_a_redirect_out_of_bounds_is_not_followed(tmp_path: Path, place: str) -> None:
    async with hosts.Redirects(VIDEO) as host, download_harness(tmp_path) as it:
        host.target = place
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Deferred)
    assert it.files() == []
    assert len(it.refreshed_at) >= 1


async def test_a_redirect_loop_ends(tmp_path: Path) -> None:
    async with hosts.Redirects(VIDEO) as host, download_harness(tmp_path) as it:
        host.target = "/again"
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Deferred)
    assert "redirects" in outcome.reason
    assert len(host.requests) <= 6 * PATIENT_LIMITS.max_attempts


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x.mp4",
        "http://10.0.0.1/x.mp4",
        "not a url",
        *MALFORMED,
    ],
)
async def test_a_first_url_out_of_bounds_is_a_deferral_with_a_reason(tmp_path: Path, url: str) -> None:
    async with download_harness(tmp_path) as it:
        outcome = await it.fetch(url)
    assert isinstance(outcome, Deferred)
    assert outcome.reason


async def test_a_name_that_resolves_into_the_private_network_is_refused(tmp_path: Path) -> None:
    """The first hop may be on this machine; the redirect's name resolves to a place that it may not be."""
    names = FakeResolver(["10.1.2.3"])
    async with hosts.Redirects(VIDEO) as host, open_session(resolver=names) as session:
        host.target = "https://harmless.example/film.mp4"
        downloader = Downloader(session=session, store=open_store(str(tmp_path)), limits=PATIENT_LIMITS)
        outcome = await DownloadHarness(tmp_path, downloader).fetch(host.url)
    assert isinstance(outcome, Deferred)
    assert "harmless.example leads to a private network" in outcome.reason
    assert names.resolve_calls >= 1


async def test_only_the_addresses_that_were_checked_are_used() -> None:
    """A name with a good and a bad address: the bad one is never connected to."""
    names = FakeResolver(["169.254.169.254", "127.0.0.1"])
    async with hosts.FileHost(VIDEO) as host, open_session(resolver=names) as session:
        url = f"http://cdn.localhost:{host.port}/film.mp4"
        async with open_body(session, url, None, 0, 20.0):
            assert len(host.requests) == 1


async def test_a_name_is_resolved_again_for_each_request() -> None:
    """It was loopback at first and is link-local now: the second request is refused."""
    async with hosts.FileHost(VIDEO) as host:
        names = FakeResolver(["127.0.0.1"], ["169.254.169.254"])
        url = f"http://cdn.localhost:{host.port}/film.mp4"
        async with open_session(resolver=names) as session:
            async with open_body(session, url, None, 0, 20.0):
                pass
            with pytest.raises(ForbiddenUrl):
                async with open_body(session, url, None, 0, 20.0):
                    pass
            assert session.connector is not None
            assert session.connector.force_close  # a kept connection would need no name
    assert len(host.requests) == 1


async def test_plain_http_by_a_name_of_this_machine_that_is_elsewhere_is_refused() -> None:
    async with open_session(resolver=FakeResolver(["93.184.216.34"])) as session:
        with pytest.raises(ForbiddenUrl):
            async with open_body(session, "http://cdn.localhost/film.mp4", None, 0, 20.0):
                pass


async def test_user_names_in_a_url_become_no_header() -> None:
    async with hosts.FileHost(VIDEO) as host, open_session() as session:
        url = f"http://user:pass@127.0.0.1:{host.port}/film.mp4"
        async with open_body(session, url, None, 0, 20.0):
            pass
    assert "authorization" not in host.requests[0].headers


async def test_nobody_there_is_unreachable() -> None:
    async with open_session() as session:
        with pytest.raises(Unreachable):
            async with open_body(session, f"http://127.0.0.1:{free_port()}/film.mp4", None, 0, 20.0):
                pass


async def test_a_session_with_a_key_is_refused(tmp_path: Path) -> None:
    async with open_session() as session:
        session.headers["Authorization"] = "Bearer key"
        with pytest.raises(ValueError, match="Authorization"):
            Downloader(session=session, store=open_store(str(tmp_path)), limits=DownloadLimits())


def test_zones_a_hop_may_be_in() -> None:
    assert first_hop("https://cdn.example/x").zones == {Zone.PUBLIC, Zone.PRIVATE, Zone.LOOPBACK}
    assert first_hop("http://localhost/x").zones == {Zone.LOOPBACK}
    origin = URL("https://cdn.example/x")
    assert next_hop(origin, Zone.PUBLIC, "https://other.example/y").zones == {Zone.PUBLIC}
    assert next_hop(origin, Zone.PUBLIC, "/y").url == URL("https://cdn.example/y")
    assert next_hop(origin, Zone.PRIVATE, "https://10.0.0.2/y").zones == {Zone.PUBLIC, Zone.PRIVATE}
    for place in ("https://10.0.0.2/y", "https://127.0.0.1/y", "http://127.0.0.1/y"):
        with pytest.raises(ForbiddenUrl):
            next_hop(origin, Zone.PUBLIC, place)


def test_what_is_shown_of_a_url_holds_no_secret() -> None:
    text = redacted(URL("https://user:pass@cdn.example/a/film.mp4?X-Amz-Signature=abc#frag"))
    assert text == "https://cdn.example/a/film.mp4"
