"""Pictures of a manifest that are files: found, hashed, and part of the row's identity by their content."""

from __future__ import annotations

import base64
import json
import math
import unicodedata
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from pipeline.manifest import ManifestProblems, load
from pipeline.manifest.fields import FieldKind, FieldRule, MediaKind, ModelRules, media_kind
from pipeline.manifest.jobs import seed_range
from pipeline.manifest.local_files import image_sha256, is_local
from pipeline.manifest.openapi import rules_from_openapi
from pipeline.plan import new_record
from tests.unit.pictures import picture_bytes, write_picture

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.model import Job

MODEL = "vendor/any-i2v"


def jobs_of(path: Path, text: str, rules: dict[str, ModelRules] | None = None) -> list[Job]:
    path.write_text(text, encoding="utf-8")
    return list(load(path, rules=rules or {}).jobs)


def test_a_row_is_its_picture_wherever_that_lies(tmp_path: Path) -> None:
    write_picture(tmp_path / "stills/cat.jpg")
    manifest = tmp_path / "batch.yaml"
    (first,) = jobs_of(manifest, "- {image: stills/cat.jpg, prompt: She yawns.}\n")
    assert first.manifest_image == "stills/cat.jpg"

    (tmp_path / "stills/cat.jpg").rename(tmp_path / "renamed cat.jpeg")
    absolute = tmp_path / "renamed cat.jpeg"
    data = base64.b64encode(absolute.read_bytes()).decode()
    for written in ("renamed cat.jpeg", str(absolute), absolute.as_uri(), f"data:image/jpeg;base64,{data}"):
        (moved,) = jobs_of(manifest, json.dumps([{"image_url": written, "prompt": "She yawns."}]))
        assert moved.key == first.key, written

    write_picture(tmp_path / "stills/cat.jpg", "png")
    (other,) = jobs_of(manifest, "- {image: stills/cat.jpg, prompt: She yawns.}\n")
    assert other.key != first.key


def test_the_record_holds_the_hash_and_not_the_picture(tmp_path: Path) -> None:
    data = picture_bytes("jpeg")
    uri = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    (job,) = jobs_of(tmp_path / "batch.json", json.dumps([[uri, "She yawns."]]))
    record = new_record(job, "x")
    assert len(record.body) < 300
    assert len(record.manifest_image) < 60
    assert len(image_sha256(record.body)) == 64
    assert image_sha256('{"image_url":"https://example.com/a.jpg"}') == ""


def test_accents_may_be_composed_otherwise_on_the_disk(tmp_path: Path) -> None:
    write_picture(tmp_path / unicodedata.normalize("NFD", "café.jpg"))
    (job,) = jobs_of(tmp_path / "batch.yaml", unicodedata.normalize("NFC", "- [café.jpg, x]\n"))
    assert job.manifest_image == "café.jpg"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nowhere.jpg", "there is no such file"),
        ("stills", "veobatch init stills"),
        ("empty.jpg", "is empty"),
        ("data:image/png;base64,", "holds nothing"),
        ("data:image/png", "no comma"),
        ("ftp://example.com/a.jpg", "http(s)"),
        ("file://[x/a.jpg", "there is no such file"),
        ("file://x\uff0fy/a.jpg", "there is no such file"),
    ],
)
def test_what_is_no_picture_is_said_at_its_line(value: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "stills").mkdir()
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ManifestProblems) as caught:
        jobs_of(tmp_path / "batch.yaml", f"jobs:\n  - image: '{value}'\n    prompt: x\n")
    (problem,) = caught.value.problems
    assert problem.line == 2
    assert message in str(problem)


def test_image_and_image_url_together_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(ManifestProblems, match="given twice"):
        jobs_of(tmp_path / "batch.yaml", "- {image: a.jpg, image_url: b.jpg, prompt: x}\n")


def test_every_field_that_is_a_picture_or_a_video_takes_a_file(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg")
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    fields = {
        "image_url": FieldRule(FieldKind.URL, media=MediaKind.IMAGE, by_value=True),
        "image_urls": FieldRule(
            FieldKind.LIST,
            items=FieldRule(FieldKind.URL, media=MediaKind.IMAGE),
            media=MediaKind.IMAGE,
        ),
        "video_url": FieldRule(FieldKind.URL, media=MediaKind.VIDEO),
        "prompt": FieldRule(FieldKind.TEXT),
    }
    rules = {MODEL: ModelRules(MODEL, MappingProxyType(fields))}
    row = {
        "model": MODEL,
        "image": "a.jpg",
        "prompt": "a.jpg",
        "params": {"image_urls": ["a.jpg", "https://example.com/b.jpg"], "video_url": "clip.mp4"},
    }
    path = tmp_path / "batch.json"
    path.write_text(json.dumps([row]))
    manifest = load(path, rules=rules)
    body = manifest.jobs[0].body
    assert body["image_urls"] == [body["image_url"], "https://example.com/b.jpg"]
    assert body["prompt"] == "a.jpg"
    kinds = {file.written: file.kind for file in manifest.files.files.values()}
    assert kinds == {"a.jpg": MediaKind.IMAGE, "clip.mp4": MediaKind.VIDEO}
    assert manifest.files.by_value == {(MODEL, "image_url")}


def schema_document(**properties: object) -> dict[str, object]:
    schema = {"type": "object", "properties": {"model": {"type": "string"}, **properties}}
    content = {"application/json": {"schema": schema}}
    return {"paths": {"/v2/video/generations": {"post": {"requestBody": {"content": content}}}}}


@pytest.mark.parametrize(
    ("name", "schema", "media", "by_value"),
    [
        ("image_url", {"type": "string", "format": "uri"}, "image", False),
        (
            "image_url",
            {"type": "string", "format": "uri", "description": "A link or a Base64-encoded local image."},
            "image",
            True,
        ),
        ("tail_image_url", {"type": "string"}, "image", False),
        (
            "video_url",
            {"type": "string", "description": "A URL of a video or a data URI containing a video."},
            "video",
            True,
        ),
        (
            "image_urls",
            {"type": "array", "items": {"type": "string", "format": "uri"}, "description": "base64 or links"},
            "image",
            True,
        ),
        ("reference", {"type": "string", "format": "uri", "description": "The first image."}, "image", False),
        ("callback", {"type": "string", "format": "uri", "description": "Is told."}, None, False),
        ("image_mode", {"type": "string", "description": "How the image is used."}, None, False),
        ("prompt", {"type": "string", "description": "What the video shows."}, None, False),
    ],
)
def test_a_schema_says_which_fields_are_pictures_and_which_take_base64(
    name: str, schema: dict[str, object], media: str | None, by_value: bool
) -> None:
    rules = rules_from_openapi(schema_document(**{name: schema}), MODEL)
    assert rules is not None
    rule = rules.fields[name]
    assert (rule.media, rule.by_value) == (media, by_value)


@pytest.mark.parametrize("bound", [math.inf, 10**400], ids=["infinite", "long"])
def test_a_bound_that_bounds_nothing_is_none(bound: float) -> None:
    schema = {"type": "integer", "minimum": -bound, "maximum": bound}
    rules = rules_from_openapi(schema_document(seed=schema), MODEL)
    assert rules is not None
    assert (rules.fields["seed"].minimum, rules.fields["seed"].maximum) == (None, None)
    assert seed_range(rules) is not None


def test_names_tell_what_a_field_holds() -> None:
    names = (
        "image_url",
        "last_image_url",
        "image_urls",
        "image_tail",
        "video_url",
        "first_frame_url",
        "images",
    )
    assert [media_kind(name) for name in names] == ["image"] * 4 + ["video"] + ["image"] * 2
    assert media_kind("prompt") is None


@pytest.mark.parametrize(
    "value", ["https://a.b/c.jpg", " https://a.b/c.jpg", "HTTP://a.b", "s3://bucket/x.jpg", ""]
)
def test_an_address_is_no_file(value: str) -> None:
    assert not is_local(value)
