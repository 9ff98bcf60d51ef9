"""Pictures as cameras write them become upright RGB JPEGs or PNGs, and the original stays as it is."""

from __future__ import annotations

import io
import random
import struct
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from pipeline.images import convert
from pipeline.images.convert import MAX_SIDE_PX
from pipeline.images.normalize import prepare, read_info
from pipeline.images.prepared import Fit, PictureError, PictureFault
from pipeline.manifest.fields import MediaKind
from pipeline.manifest.local_files import LocalFile, LocalFiles
from tests.unit.pictures import (
    GREY_KINDS,
    KINDS,
    ODD_HEADERS,
    ODD_PICTURES,
    RED,
    are_alike,
    corners_of,
    jpeg_with_exif,
    odd_picture,
    picture_bytes,
    scene,
    write_picture,
)

if TYPE_CHECKING:
    from pathlib import Path

UNCHANGED = {"jpeg", "png", "grey", "profile", "text-chunk"}


def local_file(path: Path, kind: MediaKind = MediaKind.IMAGE) -> LocalFile:
    files = LocalFiles(path.parent)
    found = files.read("image_url", path.name, kind, 1)
    assert isinstance(found, LocalFile), found
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_arrives_upright_and_in_its_colours(kind: str, tmp_path: Path) -> None:
    path = write_picture(tmp_path / f"cat.{kind}", kind)
    before = path.read_bytes()

    prepared = prepare(local_file(path), tmp_path / "made")

    assert path.read_bytes() == before
    assert (prepared.path == path) is (kind in UNCHANGED)
    with Image.open(prepared.path) as image:
        assert image.format in ("JPEG", "PNG")
        assert image.mode in ("RGB", "L")
        assert image.size == (640, 360)
        found = corners_of(image)
    if kind in GREY_KINDS:
        assert found[3][0] > found[2][0], "white is lighter than blue"
    else:
        assert are_alike(found, within=70 if kind.startswith("cmyk") else 40), found


@pytest.mark.parametrize("kind", ["turned-6", "heic", "tiff", "jpeg"])
def test_the_header_tells_the_size_as_it_is_shown(kind: str, tmp_path: Path) -> None:
    info = read_info(local_file(write_picture(tmp_path / "cat", kind)))
    assert (info.width, info.height) == (640, 360)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
def test_a_file_that_is_cut_short_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "cat"
    noise = Image.effect_noise((900, 900), 80).convert("RGB")
    file = io.BytesIO()
    noise.save(file, kind.upper())
    path.write_bytes(file.getvalue()[: file.tell() // 2])
    with pytest.raises(PictureError) as caught:
        prepare(local_file(path), tmp_path)
    assert caught.value.kind is PictureFault.PICTURE
    if kind in ("jpeg", "png"):
        with pytest.raises(PictureError):
            read_info(local_file(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!doctype html><p>log in</p>", "a web page"),
        (b"%PDF-1.7 ....", "a PDF"),
        (b"\0" * 64, "no image"),
    ],
)
def test_what_is_no_picture_says_so(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(content)
    with pytest.raises(PictureError, match=message):
        read_info(local_file(tmp_path / "cat.jpg"))


@pytest.mark.parametrize("name", ODD_PICTURES)
def test_whatever_its_decoder_raises_is_the_pictures_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / "cat.jpg"
    path.write_bytes(odd_picture(name))
    with pytest.raises(PictureError) as caught:
        prepare(local_file(path), tmp_path / "made")
    assert caught.value.kind is PictureFault.PICTURE
    assert not (tmp_path / "made").exists()
    if name in ODD_HEADERS:
        with pytest.raises(PictureError) as caught:
            read_info(local_file(path))
        assert caught.value.kind is PictureFault.PICTURE


@pytest.mark.parametrize("value", [0, 1, 9, 300])
def test_an_orientation_that_means_nothing_turns_nothing(value: int, tmp_path: Path) -> None:
    path = tmp_path / "cat.jpg"
    path.write_bytes(jpeg_with_exif([(0x0112, 3, 1, struct.pack("<H", value))], (640, 360)))
    info = read_info(local_file(path))
    assert (info.width, info.height, info.upright) == (640, 360, True)
    with Image.open(prepare(local_file(path), tmp_path).path) as image:
        assert are_alike(corners_of(image))


def test_a_transparent_part_becomes_white(tmp_path: Path) -> None:
    prepared = prepare(local_file(write_picture(tmp_path / "cat.png", "transparent")), tmp_path)
    with Image.open(prepared.path) as image:
        assert are_alike(corners_of(image)[3:], [(255, 255, 255)], within=3)


def test_a_picture_that_is_too_large_is_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    scene(MAX_SIDE_PX + 500, 300).save(path)
    with Image.open(prepare(local_file(path), tmp_path).path) as image:
        assert max(image.size) <= MAX_SIDE_PX
        assert are_alike(corners_of(image))
    monkeypatch.setattr("pipeline.images.convert.MAX_IMAGE_BYTES", 200_000)
    monkeypatch.setattr("pipeline.images.normalize.MAX_IMAGE_BYTES", 200_000)
    path = tmp_path / "heavy.png"
    Image.frombytes("RGB", (300, 300), random.Random(1).randbytes(3 * 300 * 300)).save(path)
    assert path.stat().st_size > 200_000
    assert prepare(local_file(path), tmp_path).size_bytes <= 200_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_picture_is_converted_a_band_at_a_time(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the small ones are; only that its pixels are never all there twice."""
    monkeypatch.setattr(convert, "LARGE_PX", 1)
    monkeypatch.setattr(convert, "MAX_SIDE_PX", 210)
    monkeypatch.setattr("pipeline.images.normalize.MAX_SIDE_PX", 210)
    monkeypatch.setattr(convert, "_BAND_PX", 32)
    monkeypatch.setattr(convert, "ENOUGH_PX", 1000)
    with Image.open(prepare(local_file(write_picture(tmp_path / "cat", kind)), tmp_path).path) as image:
        assert image.size == (160, 90)
        found = corners_of(image)
    if kind in GREY_KINDS:
        assert found[3][0] > found[2][0]
    else:
        assert are_alike(found, within=70 if kind.startswith("cmyk") else 40), found


@pytest.mark.parametrize(
    ("how", "size", "corner"),
    [("crop", (640, 360), RED), ("pad", (853, 480), (0, 0, 0))],
)
def test_fit_brings_a_picture_to_the_shape_of_the_clip(
    how: str, size: tuple[int, int], corner: tuple[int, int, int], tmp_path: Path
) -> None:
    path = write_picture(tmp_path / "cat.jpg", size=(640, 480))
    with Image.open(prepare(local_file(path), tmp_path, Fit(how, "16:9")).path) as image:
        assert image.size == size
        pixel = image.getpixel((10, 50))
        assert isinstance(pixel, tuple)
        assert are_alike([(int(pixel[0]), int(pixel[1]), int(pixel[2]))], [corner])
    right = write_picture(tmp_path / "right.jpg")
    assert prepare(local_file(right), tmp_path, Fit(how, "16:9")).path == right


def test_a_file_that_changed_meanwhile_is_left_to_the_next_run(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "cat.jpg")
    file = local_file(path)
    path.write_bytes(picture_bytes("png"))
    with pytest.raises(PictureError, match="changed") as caught:
        prepare(file, tmp_path)
    assert caught.value.kind is PictureFault.TRANSIENT


def test_a_video_travels_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 100)
    prepared = prepare(local_file(path, MediaKind.VIDEO), tmp_path)
    assert (prepared.path, prepared.content_type) == (path, "video/mp4")
    path.write_bytes(b"no video at all, really")
    with pytest.raises(PictureError, match="no video"):
        prepare(local_file(path, MediaKind.VIDEO), tmp_path)
