"""Whatever a vendor's id holds, its status is asked for under that id and at the API's own address."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote

from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from pipeline.client.connection import status_url

API = "https://api.example.com:8443/base%20path/v2/video/generations"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_an_id_survives_its_address(generation_id: str) -> None:
    url = status_url(URL(API, encoded=True), generation_id)
    assert str(url) == f"{API}?generation_id={quote(generation_id, safe='')}"
    assert parse_qsl(url.raw_query_string, keep_blank_values=True) == [("generation_id", generation_id)]


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert str(status_url(URL(API, encoded=True), "a\udfffb")) == f"{API}?generation_id=a%3Fb"
