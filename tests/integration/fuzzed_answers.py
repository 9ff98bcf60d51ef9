"""Answers that no documentation promises: statuses, heads, JSON, URLs and files, drawn from a seed."""

from __future__ import annotations

import copy
import gzip
import json
from typing import TYPE_CHECKING, Any

from tests.integration.vendor_double import KEY, ScriptedCreate, make_video

if TYPE_CHECKING:
    from random import Random

    from tests.integration.vendor_double import Exchange
    from tests.integration.vendor_double.script import Reply

KNOWN_REFUSALS = frozenset(
    {301, 302, 307, 308, 400, 401, 402, 403, 404, 405, 411, 413, 414, 415, 422, 429, 431, 500, 503}
)
"""Statuses by which a create is known to be refused: with any other one it may have been accepted."""

STATUSES = (
    *range(200, 207), 226, *range(300, 309), 399, *range(400, 432), 451, 460, 499, *range(500, 512), 520, 522,
    529, 598, 599, 600, 999,
)  # fmt: skip
TEXTS = (
    "", " ", "null", "0", "-1", "nan", "Infinity", "1e400", "9" * 400, "\x00", "\x1b[2J\x1b]0;hi\x07",
    "\r\n", "\u202eevil", "\ud800", "é" * 300, "👩‍🚀", "=HYPERLINK(1)", "'; DROP TABLE records;--", "../../x",
    "<script>alert(1)</script>", "{{7*7}}", "%s%n", KEY, "a" * 20_000, "\ufeff", "C:\\con", "-rf",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 10**400, 1e308, [], {}, [[]], [None], {"": None}, {"url": None}, *TEXTS,
    {"url": ["x"]}, {"url": {"url": "x"}}, {"detail": [{"loc": None, "msg": 3}]}, {"message": {}},
)  # fmt: skip
HEADERS = (
    ("Content-Type", ("application/json", "text/html; charset=klingon", "video/mp4", "", ";", "a/b/c", "é")),
    ("Content-Encoding", ("gzip", "br", "deflate", "zstd", "identity", "x", "gzip, gzip", "")),
    ("Transfer-Encoding", ("chunked", "gzip, chunked", "x", "chunked, chunked")),
    ("Content-Length", ("0", "-1", "1", "99", "x", "1, 1", "9" * 30, "+5", " ")),
    ("Content-Range", ("bytes 0-1/2", "bytes 5-3/2", "bytes */0", "bytes x", "pages 1-2/3", "bytes 0-/", "")),
    ("Accept-Ranges", ("bytes", "none", "x")),
    ("ETag", ('"a"', 'W/"a"', "a", "", '"' * 99, "é")),
    ("Last-Modified", ("yesterday", "Thu, 01 Jan 1970 00:00:00 GMT", "")),
    ("Retry-After", ("0", "0.01", "-1", "soon", "nan", "1e9", "", "Thu, 01 Jan 1970 00:00:00 GMT", "9" * 70)),
    ("Location", ("", "/", "//", "?", "/x", "http:", "https://[", "javascript:1", "\x7f", "é")),
    ("Set-Cookie", ("a=b", "=", ";;;", "a=b; Expires=never; Max-Age=x; Domain=é")),
    ("Date", ("never", "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "0")),
    ("Connection", ("close", "keep-alive", "upgrade", "x")),
    ("Upgrade", ("websocket", "h2c")),
    ("Link", ("<x>; rel=next", "<", ";")),
    ("X-Inference-Id", ("", " ", "../x", "a" * 9000, "é", "?&#")),
    ("X-Request-Id", ("", "é", "b" * 9000, "\x1b[31m")),
    ("X-AIMLAPI-USD-Spent", ("nan", "-1", "1e400", "free", "", "0.4", "9" * 400)),
    ("X-AIMLAPI-Credits-Used", ("nan", "-1", "inf", "x", "800000")),
    ("WWW-Authenticate", ("Basic", "Digest realm=", "é")),
    ("Bad Name", ("x",)), ("", ("x",)), ("X:Y", ("x",)), ("é", ("x",)),
)  # fmt: skip
SCHEMES = (
    "https://", "http://", "ftp://", "file://", "data:video/mp4;base64,", "//", "", "HTTPS:", "javascript:",
)  # fmt: skip
HOSTS = (
    "", "127.0.0.1:9", "127.0.0.1:99999", "127.0.0.1:0", "127.0.0.1:-1", "127.0.0.1:x", "[::1]:9", "[", "[]",
    "[::1", "[fe80::1%25eth0]:9", "a" * 64 + ".invalid", "a..b.invalid", ".invalid", "x.invalid", "@", ":",
    "xn--.invalid", "xn--a.invalid", "ex ample.invalid", "é.invalid", "127.1:9", "0x7f.1:9", "localhost:9",
    "user:pass@127.0.0.1:9", "127.0.0.1:9\\@x.invalid", "\uff05.invalid", "a.invalid\uff0eb",
    "\u200b.invalid", "1" * 300 + ".invalid",
)  # fmt: skip
TAILS = (
    "", "/", "/x.mp4", "/%", "/%zz.mp4", "/\x00", "/ x", "/é.mp4", "?sig=s3cr3t", "/x.mp4?a=b&sig=s3cr3t#t",
    "/" + "a" * 9000, "/../../x", "//", "/\\", ":", "\r\nX: y", "/?a=b&a=b#?#", "/%2e%2e/%00",
)  # fmt: skip


class AnswerFuzzer:
    """Draws what a vendor might send where it should not. Counts what of it was really sent."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.sent = 0
        self.said_failed = False
        """Whether a status answer of ours called the generation failed, which is then not charged."""

    def text(self) -> str:
        return self.rng.choice(TEXTS)

    def url(self, good: str) -> str:
        """A URL that nobody can fetch, or the good one written in a way that few expect."""
        rng = self.rng
        if rng.random() < 0.2:
            good = good.partition("?")[0]
            at = rng.randrange(len(good) + 1)
            return good[:at] + rng.choice((*TEXTS, "/", ":", "@", "[", "%")) + good[at + rng.randrange(3) :]
        return rng.choice(SCHEMES) + rng.choice(HOSTS) + rng.choice(TAILS)

    def altered(self, payload: Any) -> Any:
        """`payload` with a few of its values replaced, removed, doubled or wrapped."""
        payload = copy.deepcopy(payload)
        for _ in range(self.rng.randint(1, 3)):
            payload = self._altered_once(payload)
        return payload

    def _altered_once(self, payload: Any) -> Any:
        rng = self.rng
        if not payload or not isinstance(payload, dict) or rng.random() < 0.15:
            return rng.choice((*VALUES, [payload], {"data": payload}))
        name = rng.choice(list(payload))
        if rng.random() < 0.15:
            del payload[name]
        elif rng.random() < 0.1:
            payload[self.text()] = payload.pop(name)
        elif isinstance(payload[name], dict) and rng.random() < 0.6:
            payload[name] = self._altered_once(payload[name])
        else:
            payload[name] = rng.choice(VALUES)
        return payload

    def json_bytes(self, payload: Any) -> bytes:
        """JSON, or something that was JSON once."""
        rng = self.rng
        try:
            data = json.dumps(payload, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        except ValueError:  # more digits than Python prints
            data = b'{"id": ' + b"9" * 5000 + b"}"
        choice = rng.randrange(12)
        if choice == 0:
            return data[: rng.randrange(len(data) + 1)]
        if choice == 1:
            return self.damaged(data.replace(b"s3cr3t", b"x"))  # what is left of a URL is none
        if choice == 2:
            return b"[" * 3000 + data + b"]" * 3000
        if choice == 3:
            return data.replace(b":", b":Infinity,", 1)
        if choice == 4:
            return rng.choice(
                (b"", b"<html><body>\x1b[2J Sorry</body></html>", b"\xef\xbb\xbf", b"\xff\xfe{\x00")
            )
        return data

    def damaged(self, data: bytes) -> bytes:
        """`data` with some bytes changed, cut or doubled."""
        rng, changed = self.rng, bytearray(data)
        for _ in range(rng.choice((1, 4, 40))):
            if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        cut = rng.randrange(len(changed) + 1)
        return bytes(rng.choice((changed, changed[:cut], changed[cut:], changed + changed[:cut])))

    def _headers(self, *, without: frozenset[str]) -> list[tuple[str, str]]:
        rng = self.rng
        chosen = rng.sample(HEADERS, rng.choice((0, 1, 1, 2, 3)))
        headers = [(name, rng.choice(values)) for name, values in chosen if name not in without]
        if rng.random() < 0.05:
            headers += [(f"X-{number}", "x") for number in range(rng.choice((50, 300)))]
        if rng.random() < 0.05:
            headers.append(("Content-Security-Policy", "x" * 20_000))
        return headers

    def _body(self, data: bytes, headers: list[tuple[str, str]]) -> bytes:
        rng, names = self.rng, {name.lower(): value for name, value in headers}
        if names.get("content-encoding") == "gzip" and rng.random() < 0.5:
            data = gzip.compress(data)
        if "chunked" not in names.get("transfer-encoding", ""):
            return data
        if rng.random() < 0.5:
            return rng.choice((b"x\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"5\r\nab")) + data
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)

    def reply(self, status: int, data: bytes, *, without: frozenset[str] = frozenset()) -> Reply:
        """An answer of this status and body under odd headers, on a connection that is closed after it."""
        rng = self.rng
        headers = self._headers(without=without)
        body = self._body(data, headers)
        names = {name.lower() for name, _ in headers}
        if not names & {"content-length", "transfer-encoding"} and rng.random() < 0.8:
            headers.append(("Content-Length", str(len(body) + rng.choice((0, 0, 0, 0, 1, -1)))))
        lines = [f"HTTP/1.1 {status} {rng.choice(('OK', '', 'é', 'Whatever'))}"]
        lines += [f"{name}{rng.choice((':', ': ', ': ', ': ', ' : '))}{value}" for name, value in headers]
        head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass")
        if rng.random() < 0.06:
            head = rng.choice((b"HTTP/9.9 200 OK\r\n\r\n", b"\x16\x03\x01\x02", b"", head[: len(head) // 2]))
        reset = rng.random() < 0.1

        async def answer(exchange: Exchange) -> None:
            self.sent += 1
            exchange.writer.write(head + body)
            await exchange.writer.drain()
            exchange.reset() if reset else exchange.close()

        return answer

    def create(self, generation_id: object) -> ScriptedCreate:
        """A create's answer, and the truth about it: what is not known to refuse may have been accepted."""
        rng = self.rng
        status = rng.choice(STATUSES)
        known = status in KNOWN_REFUSALS
        accept = status < 300 or (not known and rng.random() < 0.5)
        payload = {"message": self.text(), "statusCode": status, "requestId": self.text()}
        if status < 300:
            payload = {"id": generation_id, "status": rng.choice(("queued", "generating", "completed", "x"))}
            payload |= {"video": {"url": self.url("https://x.invalid/a.mp4")}, "error": self.text()}
        data = self.json_bytes(self.altered(payload))
        # A 429 is the account's by its nature, and so is its Retry-After.
        without = frozenset({"Retry-After"} if status == 429 else {"X-Inference-Id"} if known else ())
        return ScriptedCreate(accept=accept, reply=self.reply(status, data, without=without))

    def status(self, generation_id: object, good_url: str) -> Reply:
        """The answer of a poll."""
        rng = self.rng
        status = rng.choice((200, 200, 200, 200, *STATUSES))
        said = rng.choice(
            ("completed", "queued", "generating", "error", "failed", "succeeded", "Completed ", "x")
        )
        video = {"url": good_url if rng.random() < 0.3 else self.url(good_url)}
        payload: Any = {
            "id": generation_id, "status": said,
            "video": rng.choice((video, [video] * 2, video["url"], None)),
            "error": rng.choice((None, {"name": self.text(), "message": self.text()}, self.text())),
            "meta": {"usage": {"credits_used": rng.choice((800_000, *VALUES))}},
        }  # fmt: skip
        if rng.random() < 0.7:
            payload = self.altered(payload)
        self.said_failed |= isinstance(payload, dict) and payload.get("status") in ("error", "failed")
        without = frozenset({"Retry-After"} if status == 429 else ())
        return self.reply(status, self.json_bytes(payload), without=without)

    def file(self, prompt: str, base_url: str) -> Reply:
        """The answer of a file host: a redirect, an error, or bytes that may be a video."""
        rng = self.rng
        film = make_video(prompt)
        data = rng.choice(
            (film, self.damaged(film), self.damaged(film), rng.randbytes(500), b"", b"<html>\x1b")
        )
        status = rng.choice((200, 200, 200, 206, 206, 416, *STATUSES))
        reply = self.reply(status, data)
        if not 300 <= status < 400:
            return reply
        location = self.url(f"{base_url}/films/x")

        async def redirect(exchange: Exchange) -> None:
            self.sent += 1
            head = f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            exchange.writer.write(head.encode("utf-8", "surrogatepass"))
            await exchange.writer.drain()

        return redirect
