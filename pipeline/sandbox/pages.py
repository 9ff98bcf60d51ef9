"""What a person sees in a browser: the index page and the sample images."""

from __future__ import annotations

import asyncio
import io
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Final

from aiohttp import web

from pipeline.sandbox.catalog import MODELS
from pipeline.sandbox.faults.catalog import FAULTS

if TYPE_CHECKING:
    from pipeline.sandbox.service import VendorService

STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;color:#1a1830;"
    "background:#fdfaf6}h1{font-weight:600}code{background:#f0e9e2;padding:.1em .3em;border-radius:4px}"
    "td{padding:.15rem 1rem .15rem 0;vertical-align:top}"
)


class PageHandlers:
    """The handlers of the pages for people."""

    def __init__(self, service: VendorService) -> None:
        self._service = service

    async def index(self, _request: web.Request) -> web.Response:
        state = self._service.state
        facts = {
            "generations": len(state.generations),
            "in flight": state.in_flight,
            "charged": f"{state.charged_usd:.2f} USD",
            "speed": f"{self._service.options.speed:g}×",
            "models": ", ".join(model.id for model in MODELS),
        }
        rows = "".join(f"<tr><td>{escape(name)}<td>{escape(str(value))}" for name, value in facts.items())
        faults = "".join(
            f"<tr><td><code>{kind.name}</code><td>{escape(kind.description)}" for kind in FAULTS.values()
        )
        page = (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>veobatch sandbox</title>"
            f"<style>{STYLE}</style><h1>veobatch sandbox</h1>"
            f"<p>A stand-in for the video API. Nothing here is real but the MP4s.</p>"
            f"<table>{rows}</table><h2>Faults it knows</h2><table>{faults}</table></html>"
        )
        return web.Response(text=page, content_type="text/html")

    async def image(self, request: web.Request) -> web.Response:
        data = await asyncio.to_thread(sample_image, request.match_info["name"])
        return web.Response(body=data, content_type="image/jpeg")


@lru_cache(maxsize=16)
def sample_image(name: str) -> bytes:
    """A JPEG of 1920 × 1080 that looks a little different for each name."""
    from pipeline.sandbox.video.scene import paint_scene

    buffer = io.BytesIO()
    paint_scene(1920, 1080, 0.0, sum(name.encode())).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
