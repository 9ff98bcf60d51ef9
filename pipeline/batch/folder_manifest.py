"""A manifest of a folder of pictures: natural order, ids of the names, prompts from where they are written.

Blocking. It writes text and never over a file: appending leaves what is there byte for byte.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from pipeline.batch.row_pictures import RowPictures
from pipeline.errors import UsageError
from pipeline.manifest.local_files import as_stored
from pipeline.row_keys import canonical_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.batch.row_pictures import RepeatedPicture

_ENDINGS: Final = (
    "jpg", "jpeg", "jfif", "mpo", "png", "webp", "heic", "heif", "avif", "tif", "tiff", "gif", "bmp",
)  # fmt: skip
PICTURE_SUFFIXES: Final = frozenset(f".{ending}" for ending in _ENDINGS)
CAPTIONS_NAME: Final = "captions.csv"
SCHEMA_NAME: Final = "veobatch.schema.json"
_IMAGE_HEADS: Final = ("image", "image_url", "file", "file_name", "filename", "name", "path", "picture")
_PROMPT_HEADS: Final = ("prompt", "caption", "text", "description")

HEADER: Final = """\
# yaml-language-server: $schema={schema}
# Made by `veobatch init`. Edit it as you like: a row is its picture and its fields, wherever it stands.
#   veobatch validate {name}       every problem, with its line
#   veobatch estimate {name}       what it costs
#   veobatch run {name} --limit 3  a few rows first; again without --limit for the rest
version: 1
defaults:
  model: {model}
  # aspect_ratio: "16:9"    # or "9:16"
  # duration: 8             # 4, 6 or 8 seconds
  # resolution: 1080p       # or 720p
run:
  name: "{{image}}"           # videos are called after their pictures
  # image_store: s3://bucket/prefix                     # for models that take only links
  # image_base_url: https://static.example.com/stills/  # or where the folder is published
jobs:
"""


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row to write. `prompt` is empty when nobody has said what happens in the clip."""

    id: str
    image: str
    prompt: str


@dataclass(frozen=True, slots=True)
class FolderManifest:
    """What was written: the manifest, how many rows are new, and how many of them lack a prompt.

    `repeated` are pictures that are in it under another name, and got no row.
    """

    path: Path
    added: int
    without_prompt: int
    repeated: Sequence[RepeatedPicture] = ()


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """Where prompts come from when no text file lies beside a picture, and which pictures count."""

    prompt: str | None = None
    captions: Path | None = None
    recursive: bool = False
    model: str = "google/veo-3.1-i2v-fast"


def write_manifest(
    folder: Path, path: Path, options: FolderOptions, *, append: bool, is_shared: bool = True
) -> FolderManifest:
    """Write the manifest of `folder` to `path`, or with `append` add the pictures that it lacks.

    It lacks those whose content no row has, whatever they are called; `is_shared` says that rows may be of
    other folders alone. Raises `UsageError` when there is no picture, when the file exists and nothing may be
    appended, when its last section is not its jobs, when a row's picture is missing that may be one of the
    new ones, and for the manifest of another folder.
    """
    pictures = find_pictures(folder, recursive=options.recursive)
    if not pictures:
        deeper = "" if options.recursive else " (--recursive looks deeper)"
        raise UsageError(f"{folder}: there are no pictures in it{deeper}")
    old = _read_old(path, append=append)
    jobs = _jobs(old, path) if old else []
    known = RowPictures.of(jobs, path.parent)
    if not is_shared:
        _reject_another_folder(known, folder, path)
    new, repeated = known.without_known(pictures)
    rows = _new_rows(new, folder, path.parent, _ids(jobs), options)
    if rows:
        _write(path, old, rows, options)
    return FolderManifest(path, len(rows), sum(not row.prompt for row in rows), repeated)


def _reject_another_folder(known: RowPictures, folder: Path, path: Path) -> None:
    """Raise `UsageError` for a manifest that has pictures, and none of them in `folder`."""
    example = known.example()
    if example is None or known.some_lie_in(folder):
        return
    place = path.parent / folder.resolve().parent.name / folder.resolve().name
    raise UsageError(
        f"{path} is the manifest of another folder, that of {example}, and its rows would be submitted, too. "
        f"Give {folder} one of its own: --output {place}, or veobatch init {folder} -o NAME.yaml. If that "
        f"folder was moved here, write where it is now into {path}"
    )


def find_pictures(folder: Path, *, recursive: bool) -> list[Path]:
    """Return the pictures in a folder by their suffixes, in natural order; hidden ones are left out."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder")
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in names
            if Path(name).suffix.lower() in PICTURE_SUFFIXES and not name.startswith(".")
        ]
    return sorted(found, key=lambda path: _natural_key(path.relative_to(folder).as_posix()))


def _natural_key(text: str) -> tuple[Any, ...]:
    parts = re.split(r"([0-9]+)", unicodedata.normalize("NFC", text).casefold())
    return tuple((int(part), "") if part.isdecimal() else (0, part) for part in parts), text


def _new_rows(
    pictures: Sequence[Path], folder: Path, base: Path, taken: set[str], options: FolderOptions
) -> list[NewRow]:
    captions = _read_captions(folder, options.captions)
    top, start = _ends(folder, base)
    rows = []
    for picture in pictures:
        name = picture.relative_to(folder)
        row_id = _row_id(name, taken)
        taken.add(canonical_id(row_id))
        image = Path(os.path.relpath(top / name, start)).as_posix()
        rows.append(NewRow(row_id, image, _prompt(picture, name, captions, options)))
    return rows


def _ends(folder: Path, base: Path) -> tuple[Path, Path]:
    """Return the folders to which and from which a row's path leads: where they are, if a link is between."""
    top, start = folder.absolute(), base.absolute()
    if (start / os.path.relpath(top, start)).resolve() == top.resolve():
        return top, start
    return top.resolve(), start.resolve()


def _row_id(name: Path, taken: set[str]) -> str:
    """Return the picture's path without its ending, or with it where another row has that id."""
    plain = unicodedata.normalize("NFC", name.with_suffix("").as_posix())
    full = unicodedata.normalize("NFC", name.as_posix())
    candidates = (plain, full, *(f"{full} {number}" for number in range(2, 10_000)))
    return next(candidate for candidate in candidates if canonical_id(candidate) not in taken)


def _prompt(picture: Path, name: Path, captions: Mapping[str, str], options: FolderOptions) -> str:
    for beside in (picture.with_suffix(".txt"), picture.with_name(f"{picture.name}.txt")):
        if (sidecar := as_stored(beside)).is_file() and (text := _read_text(sidecar).strip()):
            return text
    keys = (name.as_posix(), name.name, name.with_suffix("").as_posix(), name.stem)
    for key in keys:
        if caption := captions.get(_caption_key(key)):
            return caption
    return (options.prompt or "").replace("{stem}", name.stem)


def _caption_key(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip().replace("\\", "/").removeprefix("./")).casefold()


def _read_captions(folder: Path, named: Path | None) -> dict[str, str]:
    """Return the prompts of a table by picture; its columns are found by their names, else the first two."""
    path = named or folder / CAPTIONS_NAME
    if named is None and not path.is_file():
        return {}
    text = _read_text(path)
    try:
        dialect: Any = csv.Sniffer().sniff(text[:8192], ",;\t")
    except csv.Error:
        dialect = csv.excel
    lines = [cells for cells in csv.reader(io.StringIO(text), dialect) if any(cells)]
    if not lines:
        return {}
    heads = [re.sub(r"[\s-]+", "_", cell.strip().lower()) for cell in lines[0]]
    image = next((heads.index(head) for head in _IMAGE_HEADS if head in heads), None)
    prompt = next((heads.index(head) for head in _PROMPT_HEADS if head in heads), None)
    rows = lines[1:] if image is not None or prompt is not None else lines
    at_image, at_prompt = image or 0, 1 if prompt is None else prompt
    return {
        _caption_key(cells[at_image]): cells[at_prompt].strip()
        for cells in rows
        if len(cells) > max(at_image, at_prompt)
    }


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as UTF-8 text: {error}") from error


def _read_old(path: Path, *, append: bool) -> str:
    if not path.exists():
        return ""
    if not append:
        raise UsageError(f"{path} exists; to add the pictures that it lacks: --append")
    return path.read_bytes().decode("utf-8")


def _ids(jobs: Iterable[Any]) -> set[str]:
    ids = [row.get("id") for row in jobs if isinstance(row, dict)]
    return {canonical_id(row_id) for row_id in ids if isinstance(row_id, str)}


def _jobs(text: str, path: Path) -> list[Any]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no YAML that can be appended to: {error}") from error
    jobs = document.get("jobs") or [] if isinstance(document, dict) else document or []
    return [row for row in jobs if isinstance(row, dict | list)] if isinstance(jobs, list) else []


def _write(path: Path, old: str, rows: Iterable[NewRow], options: FolderOptions) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if old:
        _append(path, old, list(rows))
        return
    header = HEADER.format(schema=SCHEMA_NAME, name=path.name, model=options.model)
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(header + "".join(_row_text(row, "  ") for row in rows))
    schema = path.with_name(SCHEMA_NAME)
    if not schema.exists():
        from pipeline.manifest.json_schema import manifest_schema

        schema.write_text(json.dumps(manifest_schema(), indent=2) + "\n", encoding="utf-8")


def _append(path: Path, old: str, rows: list[NewRow]) -> None:
    items = re.findall(r"^( *)- ", old, re.MULTILINE)
    indent = items[-1] if items else "  "
    added = ("" if old.endswith("\n") else "\n") + "".join(_row_text(row, indent) for row in rows)
    wanted = [*_jobs(old, path), *({"id": r.id, "image": r.image, "prompt": r.prompt} for r in rows)]
    try:
        at_its_end = _jobs(old + added, path) == wanted
    except UsageError:
        at_its_end = False
    if not at_its_end:
        raise UsageError(f"{path}: its list of jobs is not at its end: move it there first")
    with path.open("ab") as file:
        file.write(added.encode("utf-8"))


def _row_text(row: NewRow, indent: str) -> str:
    note = "" if row.prompt else "  # what happens in the clip?"
    return (
        f"{indent}- id: {_quoted(row.id)}\n"
        f"{indent}  image: {_quoted(row.image)}\n"
        f"{indent}  prompt: {_quoted(row.prompt)}{note}\n"
    )


def _quoted(text: str) -> str:
    """Return a text as a double-quoted scalar, which JSON and YAML write alike."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)
