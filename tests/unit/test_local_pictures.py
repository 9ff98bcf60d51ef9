"""What is said of the pictures of a manifest before anything is spent, by how they travel."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from pipeline.images.delivery import PictureDelivery
from pipeline.images.local import check_local_files
from pipeline.manifest import load
from pipeline.settings import Settings
from tests.unit.pictures import turned_jpeg

if TYPE_CHECKING:
    from pathlib import Path

PLACE = Settings(image_base_url="https://static.example/stills")
STORE = Settings(image_store="s3://bucket/stills")


def warnings(folder: Path, settings: Settings, data: bytes, ratio: str = "16:9") -> list[str]:
    (folder / "cat.jpg").write_bytes(data)
    path = folder / "batch.json"
    path.write_text(json.dumps([{"image": "cat.jpg", "prompt": "It purrs.", "aspect_ratio": ratio}]))
    manifest = load(path)
    delivery = PictureDelivery.of(manifest.files, settings)
    return [str(warning) for warning in check_local_files(manifest.jobs, delivery, path.name).warnings]


def problems(folder: Path, data: bytes) -> list[str]:
    (folder / "cat.jpg").write_bytes(data)
    path = folder / "batch.json"
    path.write_text(json.dumps([{"image": "cat.jpg", "prompt": "It purrs."}]))
    manifest = load(path)
    delivery = PictureDelivery.of(manifest.files, STORE)
    return [str(problem) for problem in check_local_files(manifest.jobs, delivery, path.name).problems]


def noisy_picture(kind: str) -> bytes:
    """A picture whose halves are both longer than its header."""
    out = io.BytesIO()
    Image.effect_noise((1280, 720), 60).convert("RGB").save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_a_picture_that_only_exif_turns_is_warned_of_where_it_travels_as_it_is(
    tmp_path: Path, orientation: int
) -> None:
    data = turned_jpeg(orientation, (1280, 720))
    (warning,) = warnings(tmp_path, PLACE, data)
    assert "EXIF" in warning
    assert warnings(tmp_path, STORE, data) == []


def test_an_upright_picture_is_warned_of_nowhere(tmp_path: Path) -> None:
    data = turned_jpeg(1, (1280, 720))
    assert warnings(tmp_path, PLACE, data) == warnings(tmp_path, STORE, data) == []


def test_a_shape_is_warned_of_despite_fit_where_nothing_is_fitted(tmp_path: Path) -> None:
    data, fit = turned_jpeg(1, (1280, 720)), {"fit": "pad"}
    (warning,) = warnings(tmp_path, PLACE.model_copy(update=fit), data, "9:16")
    assert "far from 9:16" in warning
    assert warnings(tmp_path, STORE.model_copy(update=fit), data, "9:16") == []


FILM = b"\0\0\0\x18ftypmp42" + bytes(70_000)
"""What a phone appends to the picture of a motion photo: longer than what is looked at of a file's end."""


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_with_a_film_behind_it_is_whole(tmp_path: Path, kind: str) -> None:
    data = noisy_picture(kind)
    assert problems(tmp_path, data + FILM) == []
    (told,) = problems(tmp_path, data[: len(data) // 2] + FILM)
    assert "cut short" in told
    (told,) = problems(tmp_path, data[: len(data) // 2])
    assert "cut short" in told
