"""Owns the making of clips: one at a time in a thread, with bodies, sounds and finished files kept."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pipeline.sandbox.film.body import Body
    from pipeline.sandbox.film.packets import Piece
    from pipeline.sandbox.film.shape import Label, Picture, Shape

KEPT_BYTES: Final = 32 * 1024**2
"""Finished files that are kept for the next request or range; an older one is made again, byte for byte."""


class Studio:
    """Makes clips off the loop. Use it from one loop; `close` drops what has not begun."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-studio")
        self._clips: OrderedDict[tuple[Shape, Label], bytes] = OrderedDict()
        self._making: dict[tuple[Shape, Label], asyncio.Future[bytes]] = {}
        self._warmed: set[Shape] = set()

    async def clip(self, shape: Shape, label: Label) -> bytes:
        """The MP4 of that shape with that label; the same bytes whenever it is asked for."""
        key = (shape, label)
        kept = self._clips.get(key)
        if kept is not None:
            self._clips.move_to_end(key)
            return kept
        making = self._making.get(key)
        if making is None:
            making = asyncio.get_running_loop().run_in_executor(self._executor, _make, shape, label)
            self._making[key] = making
            making.add_done_callback(lambda done: self._keep(key, done))
        return await asyncio.shield(making)

    def warm(self, shape: Shape) -> None:
        """Begin with what all clips of that shape share, so that the first is not slower than the rest."""
        if shape not in self._warmed:
            self._warmed.add(shape)
            self._executor.submit(_STOCK.prepare, shape)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _keep(self, key: tuple[Shape, Label], done: asyncio.Future[bytes]) -> None:
        self._making.pop(key, None)
        if done.cancelled() or done.exception() is not None:
            return
        self._clips[key] = done.result()
        held = sum(len(data) for data in self._clips.values())
        while held > KEPT_BYTES and len(self._clips) > 1:
            held -= len(self._clips.popitem(last=False)[1])


class _Stock:
    """Bodies and sounds of this process; every sandbox in it shares them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bodies: dict[Picture, Body] = {}
        self._sounds: dict[tuple[float, int], tuple[Piece, ...]] = {}

    def prepare(self, shape: Shape) -> tuple[Body, tuple[Piece, ...]]:
        from pipeline.sandbox.film.body import encode_body
        from pipeline.sandbox.film.sound import soundtrack

        with self._lock:
            if shape.picture not in self._bodies:
                self._bodies[shape.picture] = encode_body(shape.picture)
            key = (shape.seconds, shape.picture.audio_bit_rate)
            if shape.audio and key not in self._sounds:
                self._sounds[key] = soundtrack(*key)
            return self._bodies[shape.picture], self._sounds[key] if shape.audio else ()


_STOCK: Final = _Stock()


def _make(shape: Shape, label: Label) -> bytes:
    from pipeline.sandbox.film.clip import make_clip

    body, sound = _STOCK.prepare(shape)
    return make_clip(shape, label, body, sound)
