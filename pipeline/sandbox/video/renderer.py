"""Makes clips, one at a time in a thread, and keeps the last ones."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pipeline.sandbox.video.shape import ClipLabel, ClipShape

KEPT_CLIPS: Final = 48
"""Clips kept for the next request or range; an older one is made again, byte for byte."""


class ClipRenderer:
    """Makes clips off the event loop. Use it from one loop; `close` drops what has not begun."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-renderer")
        self._clips: OrderedDict[tuple[ClipShape, ClipLabel], asyncio.Future[bytes]] = OrderedDict()

    async def clip(self, shape: ClipShape, label: ClipLabel) -> bytes:
        """The MP4 of that shape with that label; the same bytes at every request."""
        key = (shape, label)
        if key not in self._clips:
            loop = asyncio.get_running_loop()
            self._clips[key] = loop.run_in_executor(self._executor, _make_clip, shape, label)
        self._clips.move_to_end(key)
        if len(self._clips) > KEPT_CLIPS:
            self._clips.popitem(last=False)
        return await asyncio.shield(self._clips[key])

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def _make_clip(shape: ClipShape, label: ClipLabel) -> bytes:
    from pipeline.sandbox.video.clip import make_clip  # PyAV and Pillow load when the first clip is needed

    return make_clip(shape, label)
