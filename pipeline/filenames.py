"""File names made of the user's ids and prompts, safe on Linux, macOS, Windows and S3. Pure.

It decides what a row's files are called, and which name gives way when two would be one file. It knows
no disk: whether a name is taken there is the store's business.
"""

from __future__ import annotations

import hashlib
import re
import string
import unicodedata
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping
    from typing import TypeVar

    K = TypeVar("K", bound=Hashable)

MAX_STEM_BYTES: Final = 120
"""In UTF-8. Encrypted home folders on Linux end at 143 bytes a name, and `.mp4.origin.part` comes on top."""

_RESERVED: Final = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$", "clock$"}
    | {f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"}
)
_SAFE_CHARS: Final = frozenset(string.ascii_letters + string.digits + "-_.()'!")
"""ASCII that no file system, shell pattern or object store minds in the middle of a name."""


_FORMAT_SPEC: Final = re.compile(r"\D*\d{0,3}\D*")


def check_template(template: str) -> None:
    """Raise `UsageError` when `--name` cannot be filled in, whatever fields the rows have."""
    known = {"id": "id", "index": 0, **dict.fromkeys(("fingerprint", "model", "prompt", "image"), "")}
    _fill(template, known, any_field=True)


def file_stem(
    template: str,
    *,
    id: str,  # noqa: A002 - the manifest's and the template's own word
    index: int,
    fingerprint: str = "",
    model: str = "",
    prompt: str = "",
    image: str = "",
    fields: Mapping[str, Any] | None = None,
) -> str:
    """The name of a row's files without its ending, safe everywhere, e.g. for `{index:04d}-{id}`.

    `fields` are those of the row's body. Raises `UsageError` for a template that cannot be filled in.
    """
    scalars = {name: value for name, value in (fields or {}).items() if isinstance(value, str | int | float)}
    values: dict[str, Any] = {
        **scalars,
        "id": id,
        "index": index,
        "fingerprint": fingerprint,
        "model": model,
        "prompt": prompt,
        "image": image,
    }
    return safe_stem(_fill(template, values))


def image_stem(image_url: str) -> str:
    """Return the name of an image without folders and ending, of a path as of an address; "" for data."""
    if image_url[:5].lower() == "data:":
        return ""
    is_address = image_url[:5].lower() in ("http:", "https", "file:")
    path = unquote(urlsplit(image_url).path) if is_address else image_url.replace("\\", "/")
    return PurePosixPath(path).stem


def _fill(template: str, values: Mapping[str, Any], *, any_field: bool = False) -> str:
    """Fill in by name alone: no attributes, indexes or conversions, which `str.format` would allow.

    With `any_field`, an unknown name stands for a field that some model has.
    """
    known = ", ".join(f"{{{name}}}" for name in values)
    try:
        filled = []
        for text, name, spec, conversion in string.Formatter().parse(template):
            filled.append(text)
            if name is None:
                continue
            if any_field and name.isidentifier() and name not in values and not conversion:
                continue
            if name not in values or conversion or "{" in (spec or ""):
                raise UsageError(f"--name {template!r}: {{{name}}} is unknown; there are {known}")
            if not _FORMAT_SPEC.fullmatch(spec or ""):
                raise UsageError(f"--name {template!r}: {{{name}:{spec}}}: a width has three digits at most")
            filled.append(format(values[name], spec or ""))
        return "".join(filled)
    except ValueError as error:
        raise UsageError(f"--name {template!r}: {error}; there are {known}") from error


def safe_stem(text: str) -> str:
    """Make any text a file's stem: never empty, never a path, never hidden, never an option or a device.

    Letters of every script stay, in NFC; the rest becomes `_`. What had to be cut short ends in a hash
    of the whole, so that two long texts with one beginning stay two names.
    """
    kept = "".join(_safe_char(char) for char in unicodedata.normalize("NFC", text.rstrip(". ")))
    stem = unicodedata.normalize("NFC", kept).lstrip(".-_").rstrip(".")
    if stem.partition(".")[0].casefold() in _RESERVED:
        stem = f"_{stem}"
    if len(stem.encode()) > MAX_STEM_BYTES:
        stem = _shorten(stem, text)
    return stem or f"row-{_hash(text)}"


def assign_stems(wanted: Iterable[tuple[K, str]], taken: Mapping[K, str]) -> dict[K, str]:
    """Return a unique stem for each key, unique also where case and Unicode forms do not count.

    `wanted` holds (key, stem) in the manifest's order; `taken` what keys were given before, which they
    keep whatever is wanted now. A stem that is somebody's already gets a suffix from its key's hash, so
    that the outcome does not depend on how many clash. Returns one stem for each key of `wanted`.
    """
    assigned = dict(taken)
    used = {_casefolded(stem) for stem in assigned.values()}
    chosen: dict[K, str] = {}
    for key, stem in wanted:
        if key not in assigned:
            assigned[key] = _unused_stem(stem, str(key), used)
            used.add(_casefolded(assigned[key]))
        chosen[key] = assigned[key]
    return chosen


def _unused_stem(stem: str, key: str, used: set[str]) -> str:
    if _casefolded(stem) not in used:
        return stem
    digest = hashlib.sha256(key.encode()).hexdigest()
    for length in range(6, len(digest) + 1):
        candidate = f"{_truncate(stem, MAX_STEM_BYTES - length - 1)}-{digest[:length]}"
        if _casefolded(candidate) not in used:
            return candidate
    raise AssertionError(f"two rows have one key: {key}")


def _casefolded(stem: str) -> str:
    """One text for all names that some file system takes for the same file (APFS, HFS+, NTFS, FAT)."""
    if stem.isascii():
        return stem.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", stem).casefold()).casefold()


def _safe_char(char: str) -> str:
    if char in _SAFE_CHARS:
        return char
    if ord(char) < 128:
        return "_"
    category = unicodedata.category(char)
    if category == "Cf":
        return ""
    return char if category[0] in "LMN" else "_"


def _shorten(stem: str, whole: str) -> str:
    return f"{_truncate(stem, MAX_STEM_BYTES - 9)}-{_hash(whole)}"


def _truncate(text: str, limit_bytes: int) -> str:
    """The longest beginning that fits, without half a character and without a mark torn off its letter."""
    while len(text.encode()) > limit_bytes:
        text = text[: max(limit_bytes // 4, len(text) - max(1, (len(text.encode()) - limit_bytes) // 4))]
    return text.rstrip(".")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
