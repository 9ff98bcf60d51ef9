"""The sandbox reads the pictures of creates as the vendor does, and shows them in its clips."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from pipeline.sandbox.pictures import PictureRefusedError, picture_of, with_small_pictures
from pipeline.sandbox.video.scene import show_picture
from tests.unit.pictures import are_alike, corners_of, picture_bytes


def data_uri(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


async def test_a_picture_is_kept_small_and_shown() -> None:
    body = {"image_url": data_uri(picture_bytes("jpeg", (1280, 720))), "prompt": "x"}
    small = await with_small_pictures(body, fetches_links=False)
    assert len(small["image_url"]) < 20_000
    assert small["prompt"] == "x"
    for phase in (0.0, 0.5):
        shown = show_picture(picture_of(small), (160, 90), phase)
        assert shown.size == (160, 90)
        assert are_alike(corners_of(shown))
    first, later = (show_picture(picture_of(small), (160, 90), phase).tobytes() for phase in (0.0, 0.5))
    assert first != later, "it moves"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (data_uri(picture_bytes("jpeg", (1280, 700))), "720p"),
        (data_uri(b"no picture"), "could not be read"),
        ("data:image/jpeg;base64,%%%", "Base64"),
        ("data:image/jpeg,AAAA", "Base64"),
    ],
)
async def test_what_the_vendor_cannot_use_is_refused(value: str, message: str) -> None:
    with pytest.raises(PictureRefusedError, match=message):
        await with_small_pictures({"image_url": value}, fetches_links=False)


async def test_links_are_left_alone_offline() -> None:
    body = {"image_url": "https://example.com/a.jpg"}
    assert await with_small_pictures(body, fetches_links=False) == body
    assert picture_of(body) == b""


def test_a_picture_that_is_no_rgb_is_shown() -> None:
    file = io.BytesIO()
    Image.new("L", (320, 180), 200).save(file, "JPEG")
    assert show_picture(file.getvalue(), (64, 36), 0.25).mode == "RGB"
