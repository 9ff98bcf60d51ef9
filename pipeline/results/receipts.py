"""A receipt beside each clip: all that made it, as JSON. A projection of the ledger, like the CSV.

Never the key or a signature: URLs are written without their queries, an image by value as its checksum.
`request_sha256` is of the body as it was sent, in which a picture from the disk stands by its checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

import anyio

from pipeline import __version__
from pipeline.errors import StoreError
from pipeline.manifest.local_files import image_sha256
from pipeline.model import State
from pipeline.results.csv_rows import iso
from pipeline.results.run_log import Redactor
from pipeline.storage.base import UnreadableFile, candidate_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.events import Event
    from pipeline.model import Artifact, Record
    from pipeline.storage import OutputStore

VERSION: Final = 1
META_NAME: Final = "receipts"
"""The ledger's fact that the batch has receipts, so that a missing one is noticed."""

WRITE_INTERVAL_S: Final = 1.0
_TEXT: Final = {"type": "string"}
_OPTIONAL_TEXT: Final = {"type": ["string", "null"]}
_NUMBER: Final = {"type": ["number", "null"], "minimum": 0}
_SHA256: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_FIELDS: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "receipt": ({"const": VERSION}, "the version of this schema"),
    "tool": (_TEXT, "the program that made the clip, with its version"),
    "id": (_TEXT, "the row's id in the manifest"),
    "take": ({"type": "integer", "minimum": 1}, "which take of the row this is"),
    "line": ({"type": ["integer", "null"]}, "the row's line in the manifest"),
    "manifest": (_TEXT, "the manifest's file name"),
    "model": (_TEXT, "the model that was asked"),
    "request": ({"type": "object"}, "the body of the create; URLs without their queries"),
    "request_sha256": (_SHA256, "the checksum of the body; a picture from the disk stands in it by its own"),
    "image_sha256": (_OPTIONAL_TEXT, "the checksum of a picture from the disk"),
    "api": (_OPTIONAL_TEXT, "where it was sent"),
    "sandbox": ({"type": "boolean"}, "whether the sandbox made the clip; then money is play money"),
    "correlation_id": (_OPTIONAL_TEXT, "the X-Client-Request-Id of the create"),
    "generation_id": (_OPTIONAL_TEXT, "the vendor's name for the generation"),
    "submitted_at": (_OPTIONAL_TEXT, "when the create was sent, ISO 8601 in UTC"),
    "accepted_at": (_OPTIONAL_TEXT, "when the vendor had accepted it"),
    "finished_at": (_OPTIONAL_TEXT, "when a poll first saw it finished"),
    "downloaded_at": (_OPTIONAL_TEXT, "when the clip was saved"),
    "attempts": ({"type": "integer", "minimum": 0}, "how often the row was submitted"),
    "polls": ({"type": "integer", "minimum": 0}, "status requests"),
    "usd_spent": (_NUMBER, "what the vendor charged; null while that is unknown"),
    "credits_used": (_NUMBER, "credits that the vendor charged"),
    "video": ({"type": "object"}, "the clip: file, bytes, sha256, and what its streams are"),
    "extra": ({"type": "array"}, "further clips of the same generation: file, bytes, sha256"),
}
_PROOF: Final = (
    "receipt",
    "id",
    "take",
    "model",
    "request",
    "request_sha256",
    "correlation_id",
    "generation_id",
    "video",
)
"""What a receipt and the ledger have to agree about; the rest may be learned later."""

_PROOF_IF_KNOWN: Final = ("usd_spent", "credits_used")
"""And what they have to agree about once both know it."""


def receipt_path(artifact: Artifact) -> str:
    """Return where the receipt of a clip lies: `<id>.json` beside it."""
    return f"{artifact.path.rpartition('.')[0]}.json"


async def find_receipt(store: OutputStore, artifact: Artifact) -> tuple[str, bytes | None]:
    """Return the path and the bytes of a clip's receipt; where there is none, of what has its name.

    A file of the user's keeps its name: then the receipt lies beside it. Raises `StoreError`.
    """
    first: bytes | None = None
    for path in candidate_names(receipt_path(artifact)):
        try:
            data = await store.read_bytes(path)
        except UnreadableFile:
            continue
        if data is None:
            return receipt_path(artifact), first
        if _is_receipt(data):
            return path, data
        first = first or data
    raise AssertionError("there is always another name")


def _is_receipt(data: bytes) -> bool:
    try:
        found = json.loads(data)
        return isinstance(found["receipt"], int) and found["tool"].startswith("veobatch ")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return False


def make_receipt(record: Record, manifest: str, *, sandbox: bool, redact: Redactor) -> dict[str, Any]:
    """Return the receipt of a row that is done."""
    artifact = record.artifact
    if artifact is None:
        raise ValueError(f"{record.id} has no clip")
    return {
        "receipt": VERSION,
        "tool": f"veobatch {__version__}",
        "id": record.id,
        "take": record.take,
        "line": record.line or None,
        "manifest": manifest,
        "model": record.model,
        "request": _shown(json.loads(record.body), redact),
        "request_sha256": hashlib.sha256(record.body.encode("utf-8", "surrogatepass")).hexdigest(),
        "image_sha256": image_sha256(record.body) or None,
        "api": redact(record.api_url) or None,
        "sandbox": sandbox,
        "correlation_id": record.correlation_id or None,
        "generation_id": record.generation_id or None,
        "submitted_at": iso(record.submitted_at) or None,
        "accepted_at": iso(record.accepted_at) or None,
        "finished_at": iso(record.finished_at) or None,
        "downloaded_at": iso(record.downloaded_at) or None,
        "attempts": record.attempts,
        "polls": record.polls,
        "usd_spent": record.usd_spent,
        "credits_used": record.credits_used,
        "video": _video(artifact),
        "extra": [_file(extra.path, extra.size_bytes, extra.sha256) for extra in artifact.extra],
    }


def differences(receipt: bytes, expected: Mapping[str, Any]) -> list[str]:
    """Return the fields of a receipt that do not agree with the ledger; `["receipt"]` when it is none."""
    try:
        found = json.loads(receipt)
    except (ValueError, RecursionError):
        return ["receipt"]
    if not isinstance(found, dict):
        return ["receipt"]
    known = [name for name in _PROOF_IF_KNOWN if None not in (found.get(name), expected[name])]
    as_written = json.loads(_to_bytes(expected))
    return [name for name in _FIELDS if name in (*_PROOF, *known) and found.get(name) != as_written[name]]


def _to_bytes(receipt: Mapping[str, Any]) -> bytes:
    return json.dumps(receipt, ensure_ascii=False, indent=2).encode("utf-8", "replace") + b"\n"


def receipt_schema() -> dict[str, Any]:
    """Return the JSON Schema of a receipt. Later versions may add fields; those that are here stay."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The receipt that veobatch run --receipts writes beside each clip",
        "type": "object",
        "properties": {name: {"description": text, **rule} for name, (rule, text) in _FIELDS.items()},
        "required": list(_FIELDS),
    }


def _video(artifact: Artifact) -> dict[str, Any]:
    file = _file(artifact.path, artifact.size_bytes, artifact.sha256)
    if (media := artifact.media) is None:
        return file
    streams = {"duration_s": media.duration_s, "width": media.width, "height": media.height, "fps": media.fps}
    return file | streams | {"has_audio": media.has_audio, "video_codec": media.video_codec}


def _file(path: str, size_bytes: int, sha256: str) -> dict[str, Any]:
    """Return a file by its name alone: the receipt lies beside it and moves with it."""
    return {"file": path.rpartition("/")[2], "bytes": size_bytes, "sha256": sha256}


def _shown(value: Any, redact: Redactor) -> Any:
    """Return a request's value without signatures, and without what an image by value would fill it with."""
    match value:
        case dict():
            return {name: _shown(item, redact) for name, item in value.items()}
        case list():
            return [_shown(item, redact) for item in value]
        case str() if value[:5].lower() == "data:":
            digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
            return f"{value.partition(',')[0][:100]},… ({len(value)} characters, sha256 {digest})"
        case str():
            return redact(value)
        case _:
            return value


class ReceiptWriter:
    """An observer that notices saved clips, and the task that writes their receipts."""

    def __init__(
        self, store: OutputStore, manifest: str, *, sandbox: bool = False, secrets: Sequence[str] = ()
    ) -> None:
        self._store, self._manifest, self._sandbox = store, manifest, sandbox
        self._redact = Redactor(secrets)
        self._due: dict[str, Record] = {}

    def on_transition(self, before: Record, after: Record) -> None:
        if after.state is State.DONE and after.artifact is not None:
            self._due[after.key] = after

    def on_event(self, event: Event) -> None:
        """Events change no receipt."""

    async def keep_current(self) -> None:
        """Write receipts of what was saved, until cancelled. One that cannot be written is tried again."""
        while True:
            await self._write_due()
            await anyio.sleep(WRITE_INTERVAL_S)

    async def finish(self, records: Iterable[Record]) -> bool:
        """Write the receipts that are missing; return whether all are there."""
        done = {row.key: row for row in records if row.state is State.DONE and row.artifact is not None}
        paths = {key: receipt_path(row.artifact) for key, row in done.items() if row.artifact is not None}
        try:
            present = await self._store.stamps(list(paths.values()))
        except StoreError:
            return False
        self._due = {
            key: row
            for key, row in done.items()
            if key in self._due or (paths[key] not in present and row.artifact and not row.artifact.moved)
        }
        await self._write_due()
        return not self._due

    async def _write_due(self) -> None:
        for key, record in list(self._due.items()):
            with contextlib.suppress(StoreError):
                await self._write(record)
                if self._due.get(key) is record:
                    del self._due[key]

    async def _write(self, record: Record) -> None:
        data = _to_bytes(make_receipt(record, self._manifest, sandbox=self._sandbox, redact=self._redact))
        if record.artifact is not None:
            with anyio.CancelScope(shield=True):
                path, earlier = await find_receipt(self._store, record.artifact)
                if earlier is not None and _is_receipt(earlier):
                    await self._store.write_bytes(path, data, durable=False)
                else:
                    await self._store.write_new(path, data, replaces=False)
