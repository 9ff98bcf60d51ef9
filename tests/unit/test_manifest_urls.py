"""Addresses: what is cut, what is refused and in which words, what is doubted."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from pipeline.manifest.urls import PLAIN_URL, canonical_url, clean_url, url_doubt, url_problem

URL_TEXT = "https://example.com/mona.jpg"


@given(st.from_regex(PLAIN_URL, fullmatch=True))
def test_what_needs_no_parsing_is_what_the_parser_makes_of_it(url: str) -> None:
    parts = urlsplit(url)
    assert (parts.port, parts.query, parts.fragment, parts.username) == (None, "", "", None)
    found = PLAIN_URL.fullmatch(url)
    assert found is not None
    assert found.groups() == (parts.hostname, parts.path)
    assert urlunsplit(parts) == canonical_url(url) == clean_url(url)[0] == url


ACCIDENTS = [
    (f"{URL_TEXT}\n", "a line break at its end"),
    (f"{URL_TEXT} ", "a blank"),
    (f"\u00a0{URL_TEXT}", "an invisible U+00A0"),
    (f"{URL_TEXT}\u200b", "an invisible U+200B"),
    (f"\ufeff{URL_TEXT}", "an invisible U+FEFF"),
    (f"\u201c{URL_TEXT}\u201d", "\u201c\u201d around it"),
    (f"<{URL_TEXT}>", "<> around it"),
    (f"'{URL_TEXT}'", "'' around it"),
    (f"`{URL_TEXT}`", "`` around it"),
    ("https://example.com/\n  mona.jpg", "a line break inside it"),
]
BROKEN = [
    ("https://example.com/mona lisa.jpg", "a blank at character 25"),
    ("https://example.com/mona\u200blisa.jpg", "U+200B at character 25"),
    ("https://example\uff0ecom/mona.jpg", "full stop"),
    ("https://example.com\uff0fmona.jpg", "solidus"),
    ("https://example.com\uff1a443/mona.jpg", "colon"),
    ("https://[::1/mona.jpg", "broken IPv6"),
    ("https://[nonsense]/mona.jpg", "broken IPv6"),
    ("https://::1]/mona.jpg", "broken IPv6"),
    ("https://example.com:99999/mona.jpg", "99999"),
    ("https://example.com:port/mona.jpg", "port"),
    ("https://example.com:0/mona.jpg", "port 0"),
    (f"https://{'a' * 64}.com/mona.jpg", "more than 63 letters"),
    ("https://example..com/mona.jpg", "empty part"),
    ("https:///mona.jpg", "names no host"),
    ("https:mona.jpg", "no //"),
    ("https://exa_mple!.com/mona.jpg", "no host name has"),
    (f"https://{'a.' * 130}com/mona.jpg", "253"),
]
DOUBTED = [
    ("https://drive.google.com/file/d/1a2b/view?usp=sharing", "not the file"),
    ("https://www.dropbox.com/s/abc/mona.jpg?dl=0", "not the file"),
    ("https://imgur.com/a1b2c3", "not the file"),
    ("https://github.com/me/repo/blob/main/mona.jpg", "not the file"),
    ("https://commons.wikimedia.org/wiki/File:Mona.jpg", "not the file"),
    ("http://localhost/mona.jpg", "localhost"),
    ("http://127.0.0.1:8000/mona.jpg", "127.0.0.1"),
    ("http://192.168.1.5/mona.jpg", "192.168.1.5"),
    ("http://[fe80::1]/mona.jpg", "fe80::1"),
    ("http://nas/mona.jpg", "nas"),
    ("http://printer.local/mona.jpg", "printer.local"),
]
FINE = [
    URL_TEXT,
    "https://www.dropbox.com/s/abc/mona.jpg?dl=1",
    "https://i.imgur.com/a1b2c3.jpg",
    "https://raw.githubusercontent.com/me/repo/main/mona.jpg",
    "https://[2606:4700::1111]/mona.jpg",
    "https://example.com.:8443/a%20b.jpg?x=1#y",
]


@pytest.mark.parametrize(("written", "named"), ACCIDENTS)
def test_accidents_of_copying_are_cut_and_named(written: str, named: str) -> None:
    cleaned, cut = clean_url(written)
    assert cleaned == URL_TEXT
    assert cut == named


@pytest.mark.parametrize(("written", "named"), BROKEN)
def test_what_no_parser_takes_is_a_problem_with_its_reason(written: str, named: str) -> None:
    problem = url_problem("image_url", clean_url(written)[0])
    assert problem is not None
    assert named in problem[1]
    assert "%E2%80%8B" not in problem[2]


@pytest.mark.parametrize("written", FINE)
def test_a_good_address_is_neither_cut_nor_doubted(written: str) -> None:
    assert clean_url(written) == (written, "")
    assert url_problem("image_url", written) is None
    assert url_doubt("image_url", written) is None


@pytest.mark.parametrize(("written", "named"), DOUBTED)
def test_pages_and_private_hosts_are_doubted(written: str, named: str) -> None:
    assert url_problem("image_url", written) is None
    doubt = url_doubt("image_url", written)
    assert doubt is not None
    assert named in " ".join(doubt)


@given(
    st.text(alphabet=st.characters(), max_size=60),
    st.sampled_from(["", "https://", "http://[", "https://a:"]),
)
def test_whatever_is_written_is_judged_without_a_crash(text: str, prefix: str) -> None:
    cleaned, _ = clean_url(prefix + text)
    canonical_url(cleaned)
    if url_problem("image_url", cleaned) is None:
        url_doubt("image_url", cleaned)
        assert URL(cleaned).host  # what passes is an address for the client, too
