"""The terms of the product: jobs, states, records, failures, artifacts.

Everything here is frozen and knows no IO. A *job* is a row of the manifest, a *generation* is the
vendor's, an *artifact* is a file that was saved. A `Record` is what the ledger knows of one job; it
changes only by `Record.evolve`, and only along `LEGAL_TRANSITIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pipeline.compact_rows import Derived, changed, compact, pack, pack_end, unpack, unpack_end
from pipeline.row_keys import row_id, row_key

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(StrEnum):
    """Where a row stands. See `LEGAL_TRANSITIONS` for what may follow what."""

    PENDING = "pending"
    SUBMITTING = "submitting"
    IN_DOUBT = "in_doubt"
    GENERATING = "generating"
    READY = "ready"
    DONE = "done"
    FAILED = "failed"


LEGAL_TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.PENDING: frozenset({State.SUBMITTING, State.GENERATING, State.FAILED}),
    State.SUBMITTING: frozenset({State.PENDING, State.IN_DOUBT, State.GENERATING, State.FAILED}),
    State.IN_DOUBT: frozenset({State.PENDING, State.GENERATING, State.FAILED}),
    State.GENERATING: frozenset({State.READY, State.FAILED}),
    State.READY: frozenset({State.DONE, State.FAILED, State.GENERATING}),
    State.DONE: frozenset({State.READY, State.GENERATING}),
    State.FAILED: frozenset({State.PENDING, State.GENERATING}),
}
"""The one table of legal transitions; staying in a state (to add facts to it) is always legal.

PENDING -> GENERATING and FAILED -> GENERATING are adoptions of a generation that exists already (and a
paid one that is fetched again); PENDING -> FAILED is a row that was refused too often;
DONE -> READY/GENERATING is a saved file that has gone missing."""

PAID_STATES: Final = frozenset({State.GENERATING, State.READY, State.DONE})
"""States in which the vendor has accepted the job for certain."""

MAYBE_PAID_STATES: Final = PAID_STATES | {State.SUBMITTING, State.IN_DOUBT}
"""States in which money is or may be owed for the job."""

PICKED: Final = "picked"
REJECTED: Final = "rejected"


class Pick(NamedTuple):
    """What a reviewer said of a take: `PICKED`, `REJECTED` or "" (nothing yet), and a note."""

    pick: str = ""
    note: str = ""


class SeedRange(NamedTuple):
    """The seeds that a model takes, both ends included."""

    lowest: int
    highest: int


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the manifest, with its defaults merged and its place kept.

    `body` is exactly what create is sent, `model` included. `fingerprint` stands for its content: two
    rows with one fingerprint ask for the same clip. `index` counts from 0 in the manifest's order. `take`
    counts from 1 the goes at one row; `seeds` is there when the model takes seeds. `image` is how the
    manifest names an image that is a file: `body` then says `sha256:...` in its place.
    """

    id: str
    fingerprint: str
    index: int
    model: str
    body: Mapping[str, Any]
    line: int = 0
    column: int = 0
    take: int = 1
    seeds: SeedRange | None = None
    image: str = ""

    @property
    def row_id(self) -> str:
        return row_id(self.id, self.take)

    @property
    def key(self) -> str:
        """The ledger's key: the row's id and its content, so that an edited row is a new job."""
        return row_key(self.id, self.take, self.fingerprint)

    @property
    def prompt(self) -> str:
        value = self.body.get("prompt", "")
        return value if isinstance(value, str) else ""

    @property
    def manifest_image(self) -> str:
        """The image as the manifest names it: an address, a path, or the beginning of a `data:` URI."""
        value = self.image or self.body.get("image_url", "")
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job did not work out, as its author understands it.

    `code` is short and stable (`refused`, `generation_error`, `not_a_video`, ...), for scripts and
    `--only`; `message` holds the vendor's message. `retryable` says whether generating again may help.
    """

    code: str
    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Media:
    """What examining the saved file found. Durations in seconds, sizes in pixels."""

    duration_s: float
    width: int
    height: int
    fps: float
    has_audio: bool
    video_codec: str = ""
    audio_codec: str = ""
    warnings: tuple[str, ...] = ()


class ExtraFile(NamedTuple):
    """A further clip of the same generation, saved beside the first."""

    path: str
    size_bytes: int
    sha256: str


MOVED_MTIME_NS: Final = -1
"""`Artifact.mtime_ns` of a file that was found moved away."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A video that is whole and in its place; paths are relative to the output's root, with `/`.

    `mtime_ns` (a file) or `etag` (an object store) tell without reading it whether it is untouched. Once
    the file was moved away, which is its owner's right, `mtime_ns` is `MOVED_MTIME_NS`.
    """

    path: str
    size_bytes: int
    sha256: str
    media: Media | None = None
    poster_path: str = ""
    mtime_ns: int | None = None
    etag: str = ""
    extra: tuple[ExtraFile, ...] = ()

    @property
    def moved(self) -> bool:
        """Return whether the file was no longer in its place when it was last checked."""
        return self.mtime_ns == MOVED_MTIME_NS

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the file: what examining it found, and whether it was moved away."""
        found = self.media.warnings if self.media else ()
        return (*found, "moved: the file is no longer there") if self.moved else found


_END_FIELDS: Final = (
    "video_url", "not_yet_at", "finished_at", "downloaded_at", "polls", "usd_spent", "credits_used",
    "completed_at", "artifact",
)  # fmt: skip
_SELDOM_SET_FIELDS: Final = (
    "take", "pick", "pick_note", "faults", "doubted_at", "absent_since", "request_id", "video_urls",
    "earlier_usd", "failure",
)  # fmt: skip
_DERIVED_FIELDS: Final = {
    "body": Derived(("manifest_image", "prompt"), pack, unpack),
    "fingerprint": Derived(("key", "id"), pack_end, unpack_end),
}


@compact(_END_FIELDS, _SELDOM_SET_FIELDS, derived=_DERIVED_FIELDS)
@dataclass(frozen=True)
class Record:
    """All that the ledger knows of one job. Times are seconds since the epoch (UTC), money is USD.

    `position` is the row's place in the manifest's order, or -1 once the row was removed from it.
    `manifest_image` is the image as the manifest names it, which the table and the page show; what create is
    sent stands in `body`. `submission_no` is the number of the last submission that was committed, 0 before
    the first (each has its own correlation id); `attempts` counts those that were not merely throttled.
    `submitted_at` is when the last one was committed, `doubted_at` when its answer was given up. `not_yet_at`
    is the last poll that found the generation unfinished, `finished_at` the poll that found it finished.

    `key_id` is a salted hash of the API key that sent the last submission, "" when unknown (ledgers of an
    earlier version); `api_url` is where it was sent. `vendor_sent_at` (the last submission) and
    `absent_since` (the first complete pass over the request log that did not show it) are times by the
    vendor's clock. `completed_at` is when the vendor first called the generation completed: from then on
    it is only fetched, never bought again. `usd_spent` is what the row has cost in all, `earlier_usd` the
    part of it that submissions before the last one cost. `video_urls` is a JSON list when the generation
    has several clips, each at its place, "" for one without a URL yet. `request_id` is the vendor's, of the
    last failure. `pick` and `pick_note` are the reviewer's (`Pick`); like the place they change by a call
    of their own, never by a transition.
    """

    key: str
    id: str
    fingerprint: str
    position: int
    model: str
    body: str
    manifest_image: str
    prompt: str
    file_stem: str = ""
    line: int = 0
    take: int = 1
    pick: str = ""
    pick_note: str = ""
    state: State = State.PENDING
    version: int = 0
    submission_no: int = 0
    attempts: int = 0
    faults: int = 0
    correlation_id: str = ""
    generation_id: str = ""
    video_url: str = ""
    submitted_at: float | None = None
    doubted_at: float | None = None
    accepted_at: float | None = None
    not_yet_at: float | None = None
    finished_at: float | None = None
    downloaded_at: float | None = None
    polls: int = 0
    reserved_usd: float | None = None
    usd_spent: float | None = None
    credits_used: float | None = None
    key_id: str = ""
    api_url: str = ""
    vendor_sent_at: float | None = None
    absent_since: float | None = None
    completed_at: float | None = None
    request_id: str = ""
    video_urls: str = ""
    earlier_usd: float = 0.0
    failure: Failure | None = field(default=None)
    artifact: Artifact | None = field(default=None)

    @property
    def row_id(self) -> str:
        return row_id(self.id, self.take)

    def evolve(self, state: State | None = None, **changes: Any) -> Record:
        """Return the next version of this record.

        Raises `IllegalTransition` for one that is not in `LEGAL_TRANSITIONS`: that is a bug, never a
        condition of the outside world.
        """
        target = self.state if state is None else state
        if target is not self.state and target not in LEGAL_TRANSITIONS[self.state]:
            raise IllegalTransition(self.key, self.state, target)
        return changed(self, {"state": target, "version": self.version + 1, **changes})


def render_duration_s(record: Record) -> float | None:
    """Return how long the vendor took, from the create to the poll that found it finished, in seconds."""
    if record.submitted_at is None or record.finished_at is None:
        return None
    return max(0.0, record.finished_at - record.submitted_at)


@dataclass(frozen=True, slots=True)
class Transition:
    """One transition of one record, as the ledger is asked to make it: compare `before`, set `after`."""

    before: Record
    after: Record


class IllegalTransition(AssertionError):
    """The code asked for a transition that is not in `LEGAL_TRANSITIONS`."""

    def __init__(self, key: str, before: State, after: State) -> None:
        super().__init__(f"{key}: {before} may not become {after}")
