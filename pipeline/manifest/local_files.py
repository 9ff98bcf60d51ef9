"""Pictures and videos of a manifest that are files or `data:` URIs: read once, and named by their content.

In a row's body such a value becomes `sha256:<hex>`, so that the row's identity is the picture, wherever it
lies. Where the bytes are is known here alone; how they reach the vendor is for `pipeline.images`.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import os
import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from pipeline.manifest.problems import format_value, unpack_location
from pipeline.manifest.urls import clean_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.manifest.fields import FieldRule, MediaKind
    from pipeline.manifest.nodes import Member
    from pipeline.manifest.problems import ProblemReport, ProblemText

PREFIX: Final = "sha256:"
MAX_FILE_BYTES: Final = 512 * 1024 * 1024
NAME_A_PICTURE: Final = "give a JPEG or PNG"
FILES_BELOW: Final = "VEOBATCH_FILES_BELOW"
"""The variable with the folder that holds all files a manifest may name; unset, they lie anywhere."""

_REFERENCE: Final = re.compile(rf"{PREFIX}[0-9a-f]{{64}}")
_REFERENCE_IN_JSON: Final = re.compile(rf'"{PREFIX}([0-9a-f]{{64}})"')
_IMAGE_IN_BODY: Final = re.compile(rf'"image_url":"{PREFIX}([0-9a-f]{{64}})"')
_REMOTE: Final = re.compile(r"https?:|[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SHOWN_DATA_CHARS: Final = 40


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A picture or a video: its content's hash, the text that names it, and its path or, for a `data:` URI,
    that text. `relative` is the path from the manifest's folder, with `/`; "" when it is not below it.
    Where `relative` counts from another folder, `shared_folder` is that folder's name.
    """

    sha256: str
    kind: MediaKind
    written: str
    path: Path | None
    relative: str = ""
    line: int = 0
    column: int = 0
    shared_folder: str = ""

    def read(self) -> bytes:
        """Return the bytes. Blocking; raises `OSError`."""
        return self.path.read_bytes() if self.path is not None else decode_data_uri(self.written)


@dataclass(slots=True)
class LocalFiles:
    """The files that a manifest names, by hash.

    `by_value` holds the (model, field) pairs whose schema takes Base64.
    """

    folder: Path
    files: dict[str, LocalFile] = field(default_factory=dict)
    by_value: set[tuple[str, str]] = field(default_factory=set)

    def replace(
        self,
        model: str,
        name: str,
        value: Any,
        rule: FieldRule,
        location: int,
        report: ProblemReport,
        *,
        entry: str = "",
    ) -> Any:
        """Return a field's value with each file in it read, and replaced by what stands for its content.

        `entry` is the place in a list, such as `[0]`, for messages.
        """
        if rule.media is None:
            return value
        if isinstance(value, list):
            return [
                self.replace(model, name, item, rule, location, report, entry=f"[{number}]")
                for number, item in enumerate(value)
            ]
        if not isinstance(value, str) or not is_local(value):
            return value
        found = self.read(name + entry, value, rule.media, location >> 32)
        if not isinstance(found, LocalFile):
            report.add_problem(location, *found)
            return value
        self.files.setdefault(found.sha256, dataclasses.replace(found, column=unpack_location(location)[1]))
        if rule.by_value:
            self.by_value.add((model, name))
        return f"{PREFIX}{found.sha256}"

    def read(self, name: str, value: str, kind: MediaKind, line: int) -> LocalFile | ProblemText:
        """Return the file that a value names (see `is_local`), or why there is none. Blocking."""
        if value[:5].lower() == "data:":
            return _from_data_uri(name, value, kind, line)
        path = find_file(self.folder, value)
        what = f"{name} is {format_value(value)}"
        if path is None:
            why = "there is no such file, and it is no http(s) URL"
            return what, why, f"check the path: it counts from {self.folder}"
        root = os.environ.get(FILES_BELOW)
        if root and not path.resolve().is_relative_to(root):
            return what, f"it is outside of {root}", "files from elsewhere are not read here: copy it there"
        if path.is_dir():
            return what, "it is a folder", f"make a manifest of it: veobatch init {value}"
        try:
            info = path.stat()
            if not path.is_file() or info.st_size > MAX_FILE_BYTES:
                return what, "it is no file of up to 512 MB", "name a picture"
            digest = _file_sha256(path, info.st_mtime_ns, info.st_size)
        except OSError as error:
            return what, f"the file cannot be read: {error.strerror}", "check its permissions"
        if not info.st_size:
            return what, "the file is empty", "put the picture there again"
        return LocalFile(digest, kind, value, path, _relative(path, self.folder), line)


def _from_data_uri(name: str, value: str, kind: MediaKind, line: int) -> LocalFile | ProblemText:
    try:
        data = decode_data_uri(value)
    except ValueError as error:
        return f"{name} is a data: URI", str(error), "write data:image/jpeg;base64,... or name the file"
    if not data:
        return f"{name} is a data: URI", "it holds nothing", "name the file instead"
    return LocalFile(hashlib.sha256(data).hexdigest(), kind, value, None, "", line)


def rename_image(fields: dict[str, Member], report: ProblemReport) -> None:
    """Take `image` for `image_url`, which it is short for."""
    if "image" not in fields:
        return
    if "image_url" in fields:
        location = fields["image"].name_location
        report.add_problem(location, "image_url is given twice", "image is the same", "keep one")
    fields["image_url"] = fields.pop("image")


def image_as_written(body: Mapping[str, Any], fields: Mapping[str, Member]) -> str:
    """Return how a row names its image when that is a file; "" for an address."""
    value = fields["image_url"].value if "image_url" in fields else None
    return shown(value) if isinstance(value, str) and is_reference(body["image_url"]) else ""


def is_local(value: str) -> bool:
    """Return whether a value names a file or holds a picture itself, rather than an address."""
    text = clean_url(value)[0] if len(value) < 4096 else value
    return bool(text) and (text[:5].lower() in ("file:", "data:") or not _REMOTE.match(text))


def is_reference(value: object) -> bool:
    """Return whether a body's value stands for a file's content."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def referenced(body: Any) -> list[str]:
    """Return the hashes of the files that a body (or a part of one) stands for, in its order."""
    if isinstance(body, dict | list):
        parts = body.values() if isinstance(body, dict) else body
        return [sha256 for part in parts for sha256 in referenced(part)]
    return [body.removeprefix(PREFIX)] if is_reference(body) else []


def references_in(body_json: str) -> list[str]:
    """Return the hashes of the files that a record's body stands for, without reading the whole of it."""
    return _REFERENCE_IN_JSON.findall(body_json)


def image_sha256(body_json: str) -> str:
    """Return the hash of the file that a record's `image_url` is, "" when it is an address."""
    found = _IMAGE_IN_BODY.search(body_json) if PREFIX in body_json else None
    return found[1] if found else ""


def shown(value: str) -> str:
    """Return what stands for a value in the CSV and on pages: itself, or the beginning of a `data:` URI."""
    is_long = value[:5].lower() == "data:" and len(value) > _SHOWN_DATA_CHARS
    return f"{value[:_SHOWN_DATA_CHARS]}..." if is_long else value


def decode_data_uri(value: str) -> bytes:
    """Return the bytes of a `data:` URI. Raises `ValueError` for what is none (RFC 2397)."""
    head, comma, data = value.partition(",")
    if not comma:
        raise ValueError("it has no comma before its data")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(data)
    try:
        return base64.b64decode(re.sub(r"\s+", "", unquote(data)), validate=True)
    except binascii.Error as error:
        raise ValueError("its Base64 is damaged") from error


def find_file(folder: Path, value: str) -> Path | None:
    """Return the path that a value means, also where its accents are composed otherwise on the disk."""
    for text in dict.fromkeys((value, clean_url(value)[0])):
        try:
            spelled = unquote(urlsplit(text).path) if text[:5].lower() == "file:" else text
            path = as_stored(folder / Path(spelled).expanduser())
            if path.exists():
                return path
        except (OSError, ValueError, RuntimeError):  # no address, too long, a NUL, or a ~user that nobody is
            return None
    return None


def as_stored(path: Path) -> Path:
    """Return a path with each of its names composed as on the disk, where a name of it is there at all."""
    if str(path).isascii() or path.exists():
        return path
    found = Path(path.anchor)
    for name in path.parts[bool(path.anchor) :]:
        forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
        found /= next((form for form in forms if (found / form).exists()), name)
    return found


def _relative(path: Path, folder: Path) -> str:
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except (ValueError, OSError):
        return ""


def file_sha256(path: Path) -> str:
    """Return the hash of a file's content, which is read again only when it has changed. Raises `OSError`."""
    info = path.stat()
    return _file_sha256(path, info.st_mtime_ns, info.st_size)


@lru_cache(maxsize=200_000)
def _file_sha256(path: Path, mtime_ns: int, size_bytes: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
