"""Whatever stands in a URL, checking it ends in a hop or in `ForbiddenUrl`; no sockets."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from pipeline.client.responses import parse_generation
from pipeline.download.redirects import ForbiddenUrl, first_hop, next_hop, redacted
from pipeline.media import container_extension, looks_like_page
from pipeline.model import Record, State
from pipeline.net.address_guard import Zone
from pipeline.plan import clip_urls
from pipeline.poll.apply_status import mark_ready

AUTHORITIES = st.one_of(
    st.text(max_size=80),
    st.builds("{}:{}".format, st.sampled_from(["cdn.example", "[::1]", "127.0.0.1"]), st.text(max_size=6)),
    st.lists(st.text(max_size=70), max_size=5).map(".".join),
)
URLS = st.builds(
    "{}{}/{}".format, st.sampled_from(["https://", "http://", "//", ""]), AUTHORITIES, st.text(max_size=20)
)


@given(URLS)
@example("https://cdn.example:99999/x")
@example(f"https://{'a' * 64}.example/x")
@example("https://a..example/x")
@example("https://[fe80::1%25eth0]/x")
def test_any_url_is_a_hop_or_forbidden(text: str) -> None:
    base = URL("https://cdn.example/film.mp4")
    for check in (first_hop, partial(next_hop, base, Zone.PUBLIC)):
        with suppress(ForbiddenUrl):
            hop = check(text)
            assert hop.url.port
            assert hop.url.raw_host
            assert redacted(hop.url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://cdn.example:99999/x?sig=s3cret", "port"),
        ("https://cdn.example:0/x?sig=s3cret", "port"),
        (f"https://{'a' * 64}.example/x?sig=s3cret", "host"),
        ("https://a..example/x?sig=s3cret", "host"),
        ("ftp://cdn.example/x?sig=s3cret", "http"),
    ],
)
def test_the_reason_names_the_part_and_no_signature(url: str, reason: str) -> None:
    with pytest.raises(ForbiddenUrl) as caught:
        first_hop(url)
    assert reason in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_the_urls_of_all_clips_reach_the_downloader() -> None:
    record = Record("k", "row", "f", 0, "m", "{}", "", "", state=State.GENERATING)
    urls = ("https://cdn.example/1.mp4", "https://cdn.example/2.mp4")
    payload: dict[str, object] = {"id": "g", "status": "completed", "video": [{"url": url} for url in urls]}
    ready = mark_ready(record, parse_generation(payload, {}), 1.0)
    assert (ready.video_url, clip_urls(ready)) == (urls[0], list(urls))
    payload["video"] = {"url": urls[1]}
    ready = mark_ready(record, parse_generation(payload, {}), 1.0)
    assert clip_urls(ready) == [urls[1]]


HEADS = [
    (b"\0\0\0\x20ftypisom", "mp4"),
    (b"\0\0\0\x14ftypqt  ", "mov"),
    (b"\0\0\0\x08wide\0\0\0\0mdat", "mp4"),
    (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm", "webm"),
    (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x88matroska", "mkv"),
    (b"RIFF\0\0\0\0AVI LIST", "avi"),
    (b"RIFF\0\0\0\0WAVEfmt ", ""),
    (b"FLV\x01\x05", "flv"),
    (b"OggS\0", "ogv"),
    (b"G@\x11\x10" + bytes(184) + b"G", "ts"),
    (b"GIF89a", ""),
    (b"", ""),
]


@pytest.mark.parametrize(("head", "extension"), HEADS)
def test_containers_by_their_first_bytes(head: bytes, extension: str) -> None:
    assert container_extension(head) == extension
    assert not looks_like_page(head)


@pytest.mark.parametrize(
    "head",
    [b"<!doctype html>", b"\xef\xbb\xbf\r\n<HTML>", b"<?xml version", b'{"error": 1}', b"[]", b"</p>", b"{}"],
)
def test_pages_by_their_first_bytes(head: bytes) -> None:
    assert looks_like_page(head)
