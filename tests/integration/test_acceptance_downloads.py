"""Forty-eight videos, each through every way in which a CDN fails, through the real command."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.integration.vendor_double import GATEWAY_PAGE, make_video, vendor_and_workspace
from tests.integration.vendor_double.script import raw

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.vendor_double import Exchange
    from tests.integration.vendor_double.script import Reply

FAULTS = (
    *("cut", "cut", "short answer", "403", "404", "410", "500", "503"),
    *("page", "empty", "truncated", "corrupt"),
)
PADDING = 200_000


@dataclass(slots=True)
class TransferCheck:
    """What one film's requests asked for and were given; `held` is what a client should have of it."""

    whole: bytes
    etag: str
    rng: random.Random
    received_bytes: int = 0
    errors: list[str] = field(default_factory=list)

    def fault(self, kind: str) -> Reply:
        async def reply(exchange: Exchange) -> None:
            match = re.fullmatch(r"bytes=(\d+)-", exchange.request.headers.get("range", ""))
            start = int(match[1]) if match else 0
            if start != self.received_bytes or (
                start and exchange.request.headers.get("if-range") != self.etag
            ):
                self.errors.append(f"{kind}: from {start}, held {self.received_bytes}")
            if kind.isdigit():
                await raw(int(kind), b"<Error/>", "application/xml")(exchange)
            elif kind in ("page", "empty"):
                await raw(200, GATEWAY_PAGE if kind == "page" else b"")(exchange)
            else:
                await self._send_bytes(exchange, kind, start)

        return reply

    async def _send_bytes(self, exchange: Exchange, kind: str, start: int) -> None:
        headers = {"Content-Type": "video/mp4", "ETag": self.etag}
        if kind in ("truncated", "corrupt"):
            # What begins with "<a" by chance is an error page, for which a client gives up nothing it holds.
            noise = b"\0" + self.rng.randbytes(len(self.whole) - 1)
            await exchange.send(200, noise if kind == "corrupt" else self.whole[: -len(noise) // 2], headers)
            self.received_bytes = 0
            return
        rest = self.whole[start:]
        part = rest[: max(1, int(len(rest) * self.rng.uniform(0.1, 0.9)))]
        self.received_bytes = start + len(part)
        length = len(rest) if kind == "cut" else len(part)
        if start:
            total = len(self.whole)
            headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{total}"
        elif kind == "short answer":
            length = len(rest)  # a 200 has no way to say that it is a part
        await exchange.send(206 if start else 200, part, headers, content_length=length)
        if len(part) != length:
            exchange.close()


async def test_every_job_through_every_fault(tmp_path: Path) -> None:
    """All done and their own bytes, none created twice; what is resumed is asked for where it broke off."""
    prompts = [f"job {number}" for number in range(48)]
    share = random.Random(48)
    async with vendor_and_workspace(tmp_path, render_s=0.2) as (vendor, desk):
        vendor.cdn.padding = PADDING
        transfers = {}
        for prompt in prompts:
            whole = make_video(prompt, PADDING)
            transfers[prompt] = TransferCheck(whole, vendor.cdn.etag(whole), share)
            kinds = share.sample(FAULTS, len(FAULTS))
            vendor.script(prompt, cdn=[transfers[prompt].fault(kind) for kind in kinds])
        desk.write(prompts)
        result = await desk.run("--concurrency", "48")
        assert result.code == 0, result.output
        assert {row["prompt"]: row["status"] for row in desk.rows()} == dict.fromkeys(prompts, "done")
        assert vendor.create_counts == dict.fromkeys(prompts, 1)
        assert all(desk.video(row).read_bytes() == transfers[row["prompt"]].whole for row in desk.rows())
        assert {prompt: t.errors for prompt, t in transfers.items() if t.errors} == {}
        assert not any(script.cdn for script in vendor.scripts.values())
        assert not any(".part" in name for name in desk.files())
