"""The clips of a generation: their names, their URLs, and which staged bytes are theirs. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.download.response_headers import Validators

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.model import Artifact, Record
    from pipeline.storage import StagedFile


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip of a row: its name without an extension, and which of the generation's URLs is its own.

    `known` is what the ledger knows of an earlier save; only a file that it names may be moved aside.
    """

    stem: str
    number: int
    record: Record
    final: bool

    @property
    def known(self) -> Artifact | None:
        return self.record.artifact if self.number == 0 else None

    @property
    def staging_path(self) -> str:
        """Where the clip is staged; no stem has `=`, so that no other row's clip is staged there.

        The final name may be another row's: a row `a_2` and the second clip of `a` have one. Whoever comes
        second is published under a free name.
        """
        row = self.record.file_stem
        return f"videos/{f'{row}={self.number + 1}' if self.number else row}"

    def url(self, urls: Sequence[str]) -> str:
        return urls[self.number] if self.number < len(urls) else ""


def may_play(aside_tag: str, clip: Clip) -> bool:
    """Return whether what was set aside may play. Earlier versions did not note it: it may."""
    found = _own_validators(aside_tag, clip)
    return found is not None and found.plays is not False


def examined_tag(part: StagedFile, clip: Clip, *, plays: bool) -> str:
    """Return the tag for a whole copy that is damaged; "" when nobody knows whose it is."""
    staged = staged_validators(part, clip)
    return staged.with_verdict(part.staged_bytes, plays=plays).to_text() if staged else ""


def staged_validators(part: StagedFile, clip: Clip) -> Validators | None:
    """Return what the staged bytes are part of; None when they are not of this generation."""
    return _own_validators(part.tag, clip)


def _own_validators(tag: str, clip: Clip) -> Validators | None:
    """Read a tag; None when it is not of this generation.

    A row keeps its name when it is generated again, and a kill may have left a whole clip of before.
    Earlier versions did not note the generation: what they left counts as this one's.
    """
    found = Validators.from_text(tag)
    ours = found is not None and found.generation in ("", clip.record.generation_id)
    return found if ours else None


def clip_urls(record: Record) -> list[str]:
    """The URLs of a generation's clips, the row's own first; `video_urls` is JSON from our own ledger."""
    urls: list[str] = json.loads(record.video_urls) if record.video_urls else []
    return urls if len(urls) > 1 else [record.video_url]
