"""Addresses in a manifest: what cannot be fetched, accidents of copying, pages around a file.

Pure text: nothing is resolved or requested here. `clean_url` removes what cannot belong to an address,
`url_problem` says why one cannot be sent, `url_doubt` why one that can be sent will probably not do.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from functools import lru_cache
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from pipeline.manifest.problems import ProblemText, format_value
from pipeline.net.address_guard import is_public

MAX_URL_CHARS: Final = 8_192
MAX_HOST_CHARS: Final = 253
MAX_LABEL_CHARS: Final = 63
"""RFC 1035, section 2.3.4."""

_INVALID_CHARACTER: Final = re.compile(r"[{}|^`\"<>\\]")
_SCHEME: Final = re.compile(r"https?:", re.IGNORECASE)
_ORIGIN: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"[^/?#]*")
_QUOTES: Final = {
    '"': '"',
    "'": "'",
    "<": ">",
    "\u201c": "\u201d",
    "\u2018": "\u2019",
    "\u00ab": "\u00bb",
    "`": "`",
}
_OPENERS: Final = "".join(_QUOTES)

_SHARE_PAGES: Final = (
    (
        re.compile(r"drive\.google\.com/(file/d/|open\?)"),
        "https://drive.google.com/uc?export=download&id=...",
    ),
    (
        re.compile(r"(www\.)?dropbox\.com/.*[?&]dl=0|(www\.)?dropbox\.com/(s|scl)/(?!.*dl=1)"),
        "the same link with dl=1",
    ),
    (
        re.compile(r"(1drv\.ms|onedrive\.live\.com)/(?!download)"),
        "the link that its Download button leads to",
    ),
    (re.compile(r"(www\.)?imgur\.com/(?!.*\.\w{3,4}$)"), "https://i.imgur.com/NAME.jpg"),
    (re.compile(r"photos\.(google\.com|app\.goo\.gl)/"), "the address of the image itself"),
    (re.compile(r"(www\.)?icloud\.com/(photos|iclouddrive)/"), "the address of the image itself"),
    (re.compile(r"(www\.)?(flickr|instagram|pinterest|facebook)\.com/"), "the address of the image itself"),
    (re.compile(r"github\.com/[^/]+/[^/]+/blob/(?!.*[?&]raw=)"), "the link behind its Raw button"),
    (re.compile(r"commons\.wikimedia\.org/wiki/File:"), "the address under Original file"),
)
"""Pages that show a file but are not the file: (what their address looks like, what to give instead)."""

PLAIN_URL: Final = re.compile(r"https?://([a-z0-9-]+(?:\.[a-z0-9-]+)+)(/[a-zA-Z0-9._~/%+=@,:-]*)")
"""What needs no parsing: small letters in the host, no port, no query. Nearly all rows of a large batch."""

_SHARE_PAGE: Final = re.compile("|".join(f"(?:{pattern.pattern})" for pattern, _ in _SHARE_PAGES))


def clean_url(value: str) -> tuple[str, str]:
    """Return `value` without what can only be an accident of copying, and what was cut ("" for nothing).

    Cut are blanks and invisible characters at either end, line breaks inside (a block scalar's), and quotes
    or angle brackets around the whole.
    """
    if value.isascii() and value.isprintable() and " " not in value and value[:1] not in _OPENERS:
        return value, ""  # nearly every address of a hundred thousand rows
    cut: dict[str, None] = {}
    text = value
    while True:
        stripped = _strip(text, cut)
        if (
            len(stripped) > 1
            and stripped[0] in _OPENERS
            and stripped[-1] in (_QUOTES[stripped[0]], stripped[0])
        ):
            cut[f"{stripped[0]}{stripped[-1]} around it"] = None
            text = stripped[1:-1]
            continue
        break
    joined = re.sub(r"[ \t]*[\r\n]+[ \t]*", "", stripped)
    if joined != stripped:
        cut["a line break inside it"] = None
    return joined, ", ".join(cut)


def _strip(text: str, cut: dict[str, None]) -> str:
    begin, end = 0, len(text)
    while begin < end and _is_filler(text[begin]):
        cut[_filler_name(text[begin])] = None
        begin += 1
    while end > begin and _is_filler(text[end - 1]):
        cut[_filler_name(text[end - 1])] = None
        end -= 1
    return text[begin:end]


def _is_filler(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) in ("Cf", "Zs", "Zl", "Zp")


def _filler_name(char: str) -> str:
    if char in "\r\n":
        return "a line break at its end"
    return "a blank" if char in " \t" else f"an invisible U+{ord(char):04X}"


@lru_cache(maxsize=8)
def url_problem(name: str, value: str) -> ProblemText | None:
    """Say why `value` cannot be sent as an http(s) address, None when it can."""
    what = f"{name} is {format_value(value)}" if value.strip() else f"{name} is blank"
    if not _SCHEME.match(value):
        return what, "the vendor fetches it from the web", "name a file, or give an http(s) URL"
    if len(value) > MAX_URL_CHARS:
        return (
            f"{name} has {len(value):,} characters",
            f"{MAX_URL_CHARS:,} are the most",
            "give a shorter URL",
        )
    plain = value.isascii() and value.isprintable() and " " not in value
    if not plain and (inner := next(filter(_is_filler, value), None)):
        where = f"it has {_filler_name(inner)} at character {value.index(inner) + 1}".replace(
            " at its end", ""
        )
        return what, where, "remove it, or write it as % and two digits (%20 for a space)"
    origin = _ORIGIN.match(value)
    if problem := _authority_problem(origin[0] if origin else value):
        return what, problem, "write https://host/path"
    return _encoding_problem(name, value)


@lru_cache(maxsize=1024)
def _authority_problem(url: str) -> str | None:
    """Say what is wrong with host and port: every parser that meets the address later has to take them."""
    if not re.match(r"https?://", url, re.IGNORECASE):
        return "it has no // after the scheme"
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
    except ValueError as error:
        return _parser_message(url, error)
    if not host:
        return "it names no host"
    if port == 0:
        return "no server has port 0"
    if "\\" in parts.netloc:
        return "its host has a backslash in it"
    if "[" in parts.netloc:
        return _bracket_problem(host)
    return _look_alike(parts.netloc) or _host_problem(host)


def _parser_message(url: str, error: ValueError) -> str:
    authority = _authority(url)
    if "[" in authority or "]" in authority:
        return "its host is a broken IPv6 address"
    if odd := _look_alike(authority):
        return odd
    return f"its port is no number from 1 to 65535: {authority.rpartition(':')[2][:20]}"


def _look_alike(authority: str) -> str | None:
    """Name a character that looks like one with a meaning in addresses, such as a full-width colon."""
    for char in authority:
        if not char.isascii() and unicodedata.normalize("NFKC", char) in tuple(".:/?#@"):
            return f"its host has a {unicodedata.name(char).lower()} (U+{ord(char):04X}) in it"
    return None


def _authority(url: str) -> str:
    found = _AUTHORITY.match(url.partition("//")[2])
    return found[0] if found else ""


def _bracket_problem(host: str) -> str | None:
    try:
        ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return "its host is a broken IPv6 address"
    return None


def _host_problem(host: str) -> str | None:
    labels = host.removesuffix(".").split(".")
    if len(host) > MAX_HOST_CHARS:
        return f"its host has {len(host)} characters, and {MAX_HOST_CHARS} are the most"
    if not all(labels):
        return "its host has an empty part between two dots"
    try:
        encoded = [label.encode("idna") if not label.isascii() else label.encode() for label in labels]
    except UnicodeError:
        return "its host is no name that a browser would find"
    if any(len(label) > MAX_LABEL_CHARS for label in encoded):
        return f"a part of its host has more than {MAX_LABEL_CHARS} letters"
    if any(not re.fullmatch(rb"[A-Za-z0-9_-]+", label) for label in encoded):
        return "its host has characters that no host name has"
    return None


def _encoding_problem(name: str, value: str) -> ProblemText | None:
    """Refuse what browsers show and RFC 3986 does not allow: the vendor's schema says `format: uri`."""
    if value.isascii() and value.isprintable() and not _INVALID_CHARACTER.search(value):
        return None
    why = "a URL is written in ASCII, all else as % and two digits"
    return f"{name} is {format_value(value)}", why, f"write {percent_encoded(value)}"


def percent_encoded(url: str) -> str:
    """Return an address as RFC 3986 spells it; what is encoded already stays."""
    parts = urlsplit(url)
    try:
        host = parts.netloc.encode("idna").decode("ascii")
    except UnicodeError:
        host = quote(parts.netloc, safe="@:[]")
    path, query, fragment = (
        quote(part, safe="/:@!$&'()*+,;=%?~-._") for part in (parts.path, parts.query, parts.fragment)
    )
    return urlunsplit((parts.scheme, host, path, query, fragment))


def url_doubt(name: str, value: str) -> ProblemText | None:
    """Say why an address will probably not do: a page around a file, a host that only this machine sees."""
    if plain := PLAIN_URL.fullmatch(value):
        host, address = plain[1], plain[1] + plain[2]
    else:
        parts = urlsplit(value)
        host = (parts.hostname or "").lower()
        address = f"{host}{parts.path}{'?' + parts.query if parts.query else ''}"
    for pattern, instead in _SHARE_PAGES if _SHARE_PAGE.match(address) else ():
        if pattern.match(address):
            return (
                f"{name} is a page that shows a file, not the file",
                "the vendor would get HTML",
                f"give {instead}",
            )
    if _is_private(host):
        return (
            f"{name} is on {host}",
            "the vendor cannot reach a private address",
            "put the image on a public host",
        )
    return None


@lru_cache(maxsize=1024)
def _is_private(host: str) -> bool:
    if host in ("localhost", "host.docker.internal") or host.endswith(
        (".localhost", ".local", ".internal", ".lan")
    ):
        return True
    try:
        return not is_public(host)
    except ValueError:
        return "." not in host and ":" not in host


def is_plain_and_right(value: str) -> bool:
    """Return whether nothing here has anything to say about an address: true of nearly all."""
    plain = PLAIN_URL.fullmatch(value)
    if plain is None or len(value) > MAX_URL_CHARS or _authority_problem(value[: plain.end(1)]) is not None:
        return False
    return not (_is_private(plain[1]) or _SHARE_PAGE.match(plain[1] + plain[2]))


def canonical_url(value: str) -> str:
    """Return an address with what cannot matter written one way: small letters in the host, no default port.

    What no parser takes comes back as it is.
    """
    if PLAIN_URL.fullmatch(value):
        return value
    try:
        parts = urlsplit(value)
        port = parts.port
        host = (parts.hostname or "").lower()
    except ValueError:
        return value
    if parts.scheme.lower() not in ("http", "https") or not host:
        return value
    return urlunsplit(parts._replace(scheme=parts.scheme.lower(), netloc=_netloc(parts, host, port)))


def _netloc(parts: SplitResult, host: str, port: int | None) -> str:
    user, at, _ = parts.netloc.rpartition("@")
    named = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[parts.scheme.lower()]
    return f"{user}{at}{named}{'' if port in (None, default) else f':{port}'}"
