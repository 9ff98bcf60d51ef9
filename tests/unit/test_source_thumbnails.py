"""The page's small copies of pictures that are files."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from pipeline.manifest.fields import MediaKind
from pipeline.manifest.local_files import LocalFile, LocalFiles
from pipeline.model import State
from pipeline.results.report.page_data import FIELDS, page_rows
from pipeline.results.source_thumbnails import SIDE_PX, ThumbnailWriter, thumbnail_path
from pipeline.storage import LocalStore
from tests.unit.pictures import ODD_PICTURES, are_alike, corners_of, odd_picture, write_picture
from tests.unit.samples import record

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.model import Record


def row_of(file: LocalFile, name: str, state: State) -> Record:
    body = json.dumps({"image_url": f"sha256:{file.sha256}"}, separators=(",", ":"))
    return record(state, name, body=body, manifest_image=file.written)


async def test_pictures_that_were_sent_get_an_upright_thumbnail_and_no_other_file_does(
    tmp_path: Path,
) -> None:
    files = LocalFiles(tmp_path)
    found: dict[str, LocalFile] = {}
    for name, kind in (("sent", "turned-6"), ("waiting", "jpeg"), ("earlier", "png"), ("gone", "gif")):
        path = write_picture(tmp_path / name, kind, (1280, 720))
        read = files.read("image_url", name, MediaKind.IMAGE, 1)
        assert isinstance(read, LocalFile)
        found[name] = read
        if name == "gone":
            path.unlink()
    rows = {
        name: row_of(file, name, State.PENDING if name == "waiting" else State.GENERATING)
        for name, file in found.items()
    }
    writer = ThumbnailWriter(LocalStore(tmp_path / "out"), {file.sha256: file for file in found.values()})
    writer.on_transition(rows["sent"], rows["sent"])
    await writer.finish(rows.values())
    written = {path.name: path.read_bytes() for path in (tmp_path / "out" / "posters").iterdir()}
    assert {f"posters/{name}" for name in written} == {
        thumbnail_path(found[name].sha256) for name in ("sent", "earlier")
    }
    for data in written.values():
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (SIDE_PX, SIDE_PX * 9 // 16)
            assert are_alike(corners_of(image))


@pytest.mark.parametrize("name", ODD_PICTURES)
async def test_a_picture_of_which_none_can_be_made_costs_the_others_nothing(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "odd").write_bytes(odd_picture(name))
    write_picture(tmp_path / "good")
    files = LocalFiles(tmp_path)
    found = [files.read("image_url", name, MediaKind.IMAGE, 1) for name in ("odd", "good")]
    odd, good = [file for file in found if isinstance(file, LocalFile)]
    writer = ThumbnailWriter(LocalStore(tmp_path / "out"), {file.sha256: file for file in (odd, good)})
    await writer.finish([row_of(odd, "odd", State.DONE), row_of(good, "good", State.DONE)])
    assert (tmp_path / "out" / thumbnail_path(good.sha256)).exists()


def test_the_page_names_thumbnails_in_the_output_and_nothing_on_the_disk(tmp_path: Path) -> None:
    file = LocalFile("ab" * 32, MediaKind.IMAGE, "/home/me/stills/cat.jpg", tmp_path / "cat.jpg")
    [shown] = page_rows([row_of(file, "cat", State.DONE)])
    fields = dict(zip(FIELDS, shown, strict=True))
    assert fields["image"] == "/home/me/stills/cat.jpg"
    assert fields["source"] == thumbnail_path("ab" * 32) == f"posters/{'ab' * 16}.source.jpg"
    [shown] = page_rows([record(State.DONE)])
    assert dict(zip(FIELDS, shown, strict=True))["source"] == ""
