"""Owns the making of clips: one at a time in a thread, with bodies, sounds and finished files kept."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pipeline.sandbox.video.loop import EncodedLoop
    from pipeline.sandbox.video.packets import EncodedPacket
    from pipeline.sandbox.video.shape import ClipLabel, ClipShape, FrameFormat

CACHE_BYTES: Final = 32 * 1024**2
"""Finished files that are kept for the next request or range; an older one is made again, byte for byte."""


class ClipRenderer:
    """Makes clips off the loop. Use it from one loop; `close` drops what has not begun."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-studio")
        self._clips: OrderedDict[tuple[ClipShape, ClipLabel], bytes] = OrderedDict()
        self._rendering: dict[tuple[ClipShape, ClipLabel], asyncio.Future[bytes]] = {}
        self._prewarmed: set[ClipShape] = set()

    async def clip(self, shape: ClipShape, label: ClipLabel) -> bytes:
        """The MP4 of that shape with that label; the same bytes whenever it is asked for."""
        key = (shape, label)
        cached = self._clips.get(key)
        if cached is not None:
            self._clips.move_to_end(key)
            return cached
        rendering = self._rendering.get(key)
        if rendering is None:
            rendering = asyncio.get_running_loop().run_in_executor(self._executor, _render_clip, shape, label)
            self._rendering[key] = rendering
            rendering.add_done_callback(lambda done: self._cache_clip(key, done))
        return await asyncio.shield(rendering)

    def prewarm(self, shape: ClipShape) -> None:
        """Begin with what all clips of that shape share, so that the first is not slower than the rest."""
        if shape not in self._prewarmed:
            self._prewarmed.add(shape)
            self._executor.submit(_SHARED_ASSETS.prepare, shape)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _cache_clip(self, key: tuple[ClipShape, ClipLabel], done: asyncio.Future[bytes]) -> None:
        self._rendering.pop(key, None)
        if done.cancelled() or done.exception() is not None:
            return
        self._clips[key] = done.result()
        cached_bytes = sum(len(data) for data in self._clips.values())
        while cached_bytes > CACHE_BYTES and len(self._clips) > 1:
            cached_bytes -= len(self._clips.popitem(last=False)[1])


class _SharedAssets:
    """Bodies and sounds of this process; every sandbox in it shares them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loops: dict[FrameFormat, EncodedLoop] = {}
        self._soundtracks: dict[tuple[float, int], tuple[EncodedPacket, ...]] = {}

    def prepare(self, shape: ClipShape) -> tuple[EncodedLoop, tuple[EncodedPacket, ...]]:
        from pipeline.sandbox.video.loop import encode_loop
        from pipeline.sandbox.video.sound import encode_soundtrack

        with self._lock:
            if shape.frame_format not in self._loops:
                self._loops[shape.frame_format] = encode_loop(shape.frame_format)
            key = (shape.seconds, shape.frame_format.audio_bit_rate)
            if shape.audio and key not in self._soundtracks:
                self._soundtracks[key] = encode_soundtrack(*key)
            return self._loops[shape.frame_format], self._soundtracks[key] if shape.audio else ()


_SHARED_ASSETS: Final = _SharedAssets()


def _render_clip(shape: ClipShape, label: ClipLabel) -> bytes:
    from pipeline.sandbox.video.clip import make_clip

    loop, sound = _SHARED_ASSETS.prepare(shape)
    return make_clip(shape, label, loop, sound)
