"""The object that `veobatch run --json` prints, and its JSON Schema. What is unknown or absent is null."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import ExitCode, StopReason
from pipeline.model import State
from pipeline.results.csv_rows import STATUSES, status, visible_records
from pipeline.results.totals import summarize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.ledger.totals import Totals
    from pipeline.model import Record

_TROUBLED: Final = frozenset({State.FAILED, State.IN_DOUBT, State.SUBMITTING})
_TEXT: Final = {"type": ["string", "null"]}
_COUNT: Final = {"type": "integer", "minimum": 0}
_USD: Final = {"type": "number", "minimum": 0}
_STOP: Final = {"enum": [*(reason.value for reason in StopReason), None]}
_FAILURE: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "id": ({"type": "string"}, "the row's id"),
    "line": ({"type": ["integer", "null"]}, "its line in the manifest"),
    "status": ({"enum": ["failed", "in_doubt"]}, "what became of it"),
    "code": ({"type": "string"}, "a short, stable word, as in results.csv"),
    "message": (_TEXT, "why, mostly in the vendor's words"),
    "request_id": (_TEXT, "the vendor's request id, for their support"),
}
_FIELDS: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "exit_code": ({"type": "integer"}, "the process's exit code"),
    "stopped_reason": (_STOP, "why the run ended before everything was done"),
    "stop": (_STOP, "the same, under its former name"),
    "message": (_TEXT, "the reason in one sentence"),
    "sandbox": ({"type": "boolean"}, "whether the sandbox made the clips; then all money is play money"),
    "total": (_COUNT, "rows"),
    "counts": (
        {
            "type": "object",
            "properties": {state.value: _COUNT for state in STATUSES},
            "required": [state.value for state in STATUSES],
            "additionalProperties": False,
        },
        "rows by status",
    ),
    "removed": (_COUNT, "rows that left the manifest after they were paid for"),
    "failures": ({"type": "array", "items": {}}, "failed rows and rows in doubt"),
    "usd_spent": ({"type": ["number", "null"], "minimum": 0}, "what the vendor confirmed"),
    "usd_assumed": (_USD, "the estimate for paid rows whose price the vendor has not reported"),
    "usd_open": (_USD, "reserved for rows that are not settled"),
    "unpriced": (_COUNT, "paid rows whose price is unknown"),
    "saved_bytes": (_COUNT, "bytes of saved videos"),
    "video_s": ({"type": "number", "minimum": 0}, "seconds of footage"),
    "polls": (_COUNT, "status requests"),
    "began_at": (_TEXT, "the first submission, ISO 8601"),
    "ended_at": (_TEXT, "the last thing that happened to a row, ISO 8601"),
    "wall_s": ({"type": ["number", "null"], "minimum": 0}, "how long this run took, in seconds"),
    "results": (_TEXT, "path or URL of results.csv"),
    "report": (_TEXT, "path or URL of report.html"),
    "videos": (_TEXT, "path or URL of the videos' folder"),
    "next": (_TEXT, "the command that continues from here"),
    "next_hint": (_TEXT, "what has to be done before or with it"),
}


def summary_json(
    records: Sequence[Record],
    exit_code: ExitCode,
    stop_reason: StopReason | None,
    *,
    sandbox: bool,
    money: Totals | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Return the object. `facts` are the other fields of the schema; empty strings become null."""
    stopped = stop_reason.value if stop_reason else None
    fields = {
        **summarize(records, sandbox=sandbox, money=money).to_json(),
        "exit_code": int(exit_code),
        "stopped_reason": stopped,
        "stop": stopped,
        "failures": failures_json(records),
    } | facts
    return {name: None if (value := fields.get(name)) == "" else value for name in _FIELDS}


def failures_json(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return every failed row and row in doubt, in the manifest's order."""
    return [
        {
            "id": row.id,
            "line": row.line or None,
            "status": status(row).value,
            "code": row.failure.code if row.failure else status(row).value,
            "message": (row.failure.message if row.failure else "") or None,
            "request_id": row.request_id or None,
        }
        for row in visible_records(records)
        if row.state in _TROUBLED
    ]


def summary_schema() -> dict[str, Any]:
    schema = _object_schema(_FIELDS)
    schema["properties"]["failures"]["items"] = _object_schema(_FAILURE)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The summary that veobatch run --json prints",
        **schema,
    }


def _object_schema(fields: Mapping[str, tuple[Mapping[str, Any], str]]) -> dict[str, Any]:
    """Later versions may add fields; those that are here stay."""
    return {
        "type": "object",
        "properties": {name: {"description": text, **rule} for name, (rule, text) in fields.items()},
        "required": list(fields),
    }
