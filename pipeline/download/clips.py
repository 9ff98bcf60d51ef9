"""The clips of a generation: their names, which staged bytes are theirs, and what is kept of them. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline import media
from pipeline.download.response_headers import Validators
from pipeline.model import Artifact, ExtraFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.model import Record
    from pipeline.storage import PublishedFile, StagedFile


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip of a row: its name without an extension, and which of the generation's URLs is its own.

    `is_main` says that it is the row's first one that plays. `known` is what the ledger knows of an earlier
    save of it; only a file that it names may be moved aside.
    """

    number: int
    record: Record
    final: bool
    is_main: bool = True

    @property
    def stem(self) -> str:
        return clip_stem(self.record, self.number)

    @property
    def known(self) -> Artifact | None:
        artifact = self.record.artifact
        if artifact is None or not self.is_main or self._is_of_other_clip(artifact):
            return None
        return artifact

    def _is_of_other_clip(self, artifact: Artifact) -> bool:
        """Return whether an earlier run found another clip to be the first one that plays."""
        if self.number:
            return not artifact.path.startswith(f"videos/{self.stem}.")
        return bool(self.record.video_urls) and artifact.path.startswith(f"videos/{self.stem}_")

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


def new_artifact(
    published: PublishedFile, clip: Clip, found: media.Examination, poster_path: str
) -> Artifact:
    """Return what the ledger keeps of a clip that was published, with what is odd about it."""
    facts = found.media
    if facts is not None:
        facts = media.with_mismatch_warnings(facts, json.loads(clip.record.body))
        if found.defects:
            facts = replace(facts, warnings=(*facts.warnings, found.defects))
    return Artifact(
        published.path,
        published.size_bytes,
        published.sha256,
        facts,
        poster_path,
        mtime_ns=published.stamp.mtime_ns,
        etag=published.stamp.etag,
    )


def joined_artifact(record: Record, saved: Mapping[int, Artifact], missing: Mapping[int, str]) -> Artifact:
    """Return a row's artifact: its first clip that plays, the others beside it, and what is missing.

    `saved` are the clips by their numbers, `missing` says why there is no other one of a number. Of those,
    what an earlier run saved stays known.
    """
    files = {number: ExtraFile(one.path, one.size_bytes, one.sha256) for number, one in saved.items()}
    files |= {number: file for number in missing if (file := _saved_before(record, number))}
    first, earlier = min(files), record.artifact
    main = saved.get(first)
    if main is None and earlier is not None and earlier.path == files[first].path:
        main = earlier
    elif main is None:
        first = min(saved)
        main = saved[first]
    artifact = replace(main, extra=tuple(files[number] for number in sorted(files) if number != first))
    if artifact.media is not None and missing:
        warnings = tuple(dict.fromkeys((*artifact.media.warnings, *missing.values())))
        artifact = replace(artifact, media=replace(artifact.media, warnings=warnings))
    return artifact


def clip_stem(record: Record, number: int) -> str:
    """Return the name without an extension of a row's clip: `a`, `a_2` and so on."""
    return f"{record.file_stem}_{number + 1}" if number else record.file_stem


def _saved_before(record: Record, number: int) -> ExtraFile | None:
    """Return what an earlier run saved as the clip of a number, if anything: its name tells."""
    if record.artifact is None:
        return None
    one = record.artifact
    files = (ExtraFile(one.path, one.size_bytes, one.sha256), *one.extra)
    prefix = f"videos/{clip_stem(record, number)}."
    return next((file for file in files if file.path.startswith(prefix)), None)
