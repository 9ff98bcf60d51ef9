"""Keeps encoded packets as plain bytes with their times, so that they can be muxed again and again."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import av

if TYPE_CHECKING:
    from collections.abc import Iterable

    from av.container import OutputContainer


@dataclass(frozen=True, slots=True)
class EncodedPacket:
    """One encoded packet; times in ticks of its own stream (frames for video, samples for sound)."""

    data: bytes
    pts: int
    duration: int
    is_keyframe: bool


def to_packets(packets: Iterable[av.Packet[Any]]) -> list[EncodedPacket]:
    return [
        EncodedPacket(bytes(packet), packet.pts or 0, packet.duration or 0, packet.is_keyframe)
        for packet in packets
    ]


def open_discarded_container() -> OutputContainer:
    """An MP4 that is never written: encoders need one to know that their headers go to the container."""
    return av.open(io.BytesIO(), "w", format="mp4")
