"""What a receipt says, that it says nothing secret, and that a changed one is noticed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import jsonschema
import pytest

from pipeline.errors import StoreError
from pipeline.model import Artifact, ExtraFile, Media, Record, State
from pipeline.results.receipts import (
    ReceiptWriter,
    differences,
    find_receipt,
    make_receipt,
    receipt_path,
    receipt_schema,
)
from pipeline.results.run_log import Redactor
from pipeline.storage import LocalStore
from tests.unit.samples import record

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-very-secret"
SIGNED = "https://cdn.example.com/a.jpg?X-Amz-Signature=abc123"
BODY = json.dumps({"model": "m", "prompt": "A cat, yawning?", "image_url": SIGNED, "seed": 7})
EXTRA = (ExtraFile("videos/one-2.mp4", 3, "cd" * 32),)
MEDIA = Media(8.0, 1920, 1080, 24.0, has_audio=True)
ARTIFACT = Artifact("videos/one.mp4", 9, "ab" * 32, MEDIA, extra=EXTRA)


def done() -> Record:
    row = record(State.DONE, "one", 0, line=3, usd_spent=1.25, submitted_at=1e9, correlation_id="vb.x.one.1")
    return replace(row, body=BODY, artifact=ARTIFACT)


def receipt_of(row: Record) -> dict[str, object]:
    return make_receipt(row, "night.yaml", sandbox=False, redact=Redactor([KEY]))


def test_a_receipt_keeps_to_its_schema_and_names_what_made_the_clip() -> None:
    receipt = receipt_of(done())
    jsonschema.validate(json.loads(json.dumps(receipt)), receipt_schema())
    assert receipt.keys() == receipt_schema()["properties"].keys()
    assert (receipt["id"], receipt["usd_spent"], receipt["manifest"]) == ("one", 1.25, "night.yaml")
    assert receipt["request_sha256"] == hashlib.sha256(BODY.encode()).hexdigest()
    assert receipt["video"] == {
        "file": "one.mp4",
        "bytes": 9,
        "sha256": "ab" * 32,
        "duration_s": 8.0,
        "width": 1920,
        "height": 1080,
        "fps": 24.0,
        "has_audio": True,
        "video_codec": "",
    }
    assert receipt["extra"] == [{"file": "one-2.mp4", "bytes": 3, "sha256": "cd" * 32}]
    assert receipt_path(ARTIFACT) == "videos/one.json"


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "p", "image_url": SIGNED},
        {"prompt": f"use {KEY}", "refs": [SIGNED, {"url": SIGNED}]},
        {"prompt": "p", "image_url": "data:image/png;base64,abc123"},
        {"prompt": "p", "params": {"mask": "DATA:image/png;base64," + "abc123" * 500_000}},
    ],
)
def test_neither_the_key_nor_a_signature_nor_an_image_is_in_it(body: dict[str, object]) -> None:
    text = json.dumps(receipt_of(replace(done(), body=json.dumps(body), api_url=SIGNED)))
    assert KEY not in text
    assert "abc123" not in text
    assert len(text) < 3_000
    assert "A cat, yawning?" in json.dumps(receipt_of(done()))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, []),
        ({"tool": "veobatch 9", "usd_spent": None, "polls": 0, "line": 1}, []),
        ({"video": {"file": "one.mp4"}}, ["video"]),
        ({"id": "two", "request_sha256": ""}, ["id", "request_sha256"]),
        ({"request": {"model": "m", "prompt": "Another."}}, ["request"]),
        ({"usd_spent": 0.01}, ["usd_spent"]),
    ],
)
def test_what_must_agree_with_the_ledger_is_compared(change: dict[str, object], found: list[str]) -> None:
    expected = receipt_of(done())
    assert differences(json.dumps(expected | change).encode(), expected) == found


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_receipt_differs(text: bytes) -> None:
    assert differences(text, receipt_of(done())) == ["receipt"]


class FullStore(LocalStore):
    full = True

    async def write_bytes(self, path: str, data: bytes, *, durable: bool = True) -> None:
        if self.full:
            raise StoreError("no space left")
        await super().write_bytes(path, data, durable=durable)

    async def write_new(self, path: str, data: bytes, *, replaces: bool) -> str:
        if self.full:
            raise StoreError("no space left")
        return await super().write_new(path, data, replaces=replaces)


def stamp(path: Path) -> tuple[int, int, int, int]:
    """What shows that a file or a link was replaced or written; to read it changes its access time alone."""
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize("theirs", ["a file", "a link to itself"])
async def test_what_has_a_receipts_name_is_left_alone(tmp_path: Path, theirs: str) -> None:
    store = LocalStore(tmp_path)
    place = tmp_path / "videos" / "one.json"
    place.parent.mkdir()
    if theirs == "a file":
        place.write_text('{"receipt": "of the shop"}', encoding="utf-8")
    else:
        place.symlink_to(place.name)
    before = stamp(place)
    for usd in (None, 0.5):
        paid = replace(done(), usd_spent=usd)
        writer = ReceiptWriter(store, "night.yaml", secrets=[KEY])
        writer.on_transition(record(), paid)
        assert await writer.finish([paid])
    assert stamp(place) == before
    ours = place.with_name("one.new-1.json")
    assert json.loads(ours.read_bytes())["usd_spent"] == 0.5
    assert set(place.parent.iterdir()) == {place, ours}
    assert await find_receipt(store, ARTIFACT) == ("videos/one.new-1.json", ours.read_bytes())


async def test_receipts_that_are_missing_are_written_at_the_end_and_the_others_left_alone(
    tmp_path: Path,
) -> None:
    store = FullStore(tmp_path)
    writer = ReceiptWriter(store, "night.yaml", secrets=[KEY])
    kept = replace(done(), key="kept", artifact=replace(ARTIFACT, path="videos/kept.mp4"))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "kept.json").write_text("mine", encoding="utf-8")
    writer.on_transition(record(), done())
    rows = [done(), kept, record(State.FAILED, "bad", 1)]
    assert not await writer.finish(rows)
    store.full = False
    assert await writer.finish(rows)
    assert json.loads((tmp_path / "videos" / "one.json").read_text(encoding="utf-8"))["id"] == "one"
    assert (tmp_path / "videos" / "kept.json").read_text(encoding="utf-8") == "mine"
