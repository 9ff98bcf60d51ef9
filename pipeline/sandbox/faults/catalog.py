"""Owns the names of all faults: what each spoils and what it does, for readers, `--help` and the desk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.sandbox.faults.injector import FaultPoint

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One way to misbehave: its name, what it spoils, and what it does."""

    name: str
    point: FaultPoint
    description: str


def _fault_kinds(point: FaultPoint, **lines: str) -> dict[str, FaultKind]:
    names = {name.replace("_", "-"): does for name, does in lines.items()}
    return {name: FaultKind(name, point, does) for name, does in names.items()}


FAULTS: Final[Mapping[str, FaultKind]] = {
    **_fault_kinds(
        FaultPoint.CREATE,
        bad_request="400 that names a field; not accepted",
        unprocessable="422 with a list of problems; not accepted",
        unauthorized="401 although the key is right; not accepted",
        out_of_credits="403 out of credits; not accepted",
        not_found="404; not accepted",
        throttled="429; `value`: Retry-After in seconds, a date or date:SECONDS; not accepted",
        quota="429 that names the free tier's hourly limit; not accepted",
        server_error="500; not accepted",
        unavailable="503 with an HTML page; not accepted",
        gateway_lost="`value` (502, or 504) from a gateway; not accepted",
        gateway_accepted="`value` (502, or 504) from a gateway although the create was accepted",
        cut_before="reset once the body was read; not accepted",
        cut_accepted="accepted, then reset before any answer",
        cut_inside_answer="accepted, then cut in the middle of the answer",
        garbage="accepted, answered 200 with bytes that are no JSON",
        html="accepted, answered 200 with an HTML page",
        empty="accepted, answered 200 with nothing",
        no_id="accepted, answered 200 with JSON that has no id",
        hang="never answers; not accepted",
        hang_accepted="accepted, but never answers",
        slow_answer="accepted, answered `value` (2) real seconds later",
    ),
    **_fault_kinds(
        FaultPoint.STATUS,
        status_throttled="429; `value`: Retry-After in seconds, a date or date:SECONDS",
        status_error="`value` (500) with the vendor's error body",
        status_gateway="`value` (502) with an HTML page",
        status_reset="reset instead of an answer",
        status_cut="cut in the middle of the answer",
        status_garbage="200 with bytes that are no JSON",
        status_html="200 with an HTML page",
        status_empty="200 with nothing",
        status_hang="never answers",
        status_unknown="a status that no document names: `value` (reticulating)",
        status_samples="`video` and `error` are sample objects while in progress",
        status_other_names="processing, pending, complete, succeeded, failed, cancelled for the usual names",
        status_not_found="404 for a generation that exists",
        status_unauthorized="401 although the key is right",
    ),
    **_fault_kinds(
        FaultPoint.GENERATION,
        error="ends in `error` with a name and a message",
        error_detail="ends in `error` with a list of details",
        error_text="ends in `error` with a plain string",
        content_refusal="ends in `error`: refused by the safety filter",
        completed_without_url="ends in `completed` without a video URL",
        id_as_generation_id="answers `generation_id` in place of `id`",
        sample_objects="sample objects as `video` and `error` until the end; `value` empty: {}",
        never_finishes="renders for ever",
        slow="renders `value` (10) times longer",
    ),
    **_fault_kinds(
        FaultPoint.LOG_ROW,
        log_row_never="the generation's row never shows in the log",
        log_row_late="the generation's row shows `value` (3600) vendor's seconds later than the others",
    ),
    **_fault_kinds(
        FaultPoint.LOG_CALL,
        log_error="`value` (500) from the log",
        log_garbage="200 with bytes that are no JSON from the log",
        log_throttled="429 from the log; `value`: Retry-After",
    ),
    **_fault_kinds(
        FaultPoint.CDN,
        cdn_cut="the connection ends after `value` (0.5) of what was asked for",
        cdn_stall="nothing more comes after `value` (0.5) of what was asked for",
        cdn_trickle="`value` (200) bytes a second",
        cdn_wrong_length="announces `value` (1000) bytes more than it sends, then ends",
        cdn_changed="another file with another ETag, of the same length, is served from now on",
        cdn_gzip="compressed, with Content-Encoding: gzip, whether or not it was asked for",
        cdn_no_range="ignores Range: always the whole file with 200, without an ETag",
        cdn_error="`value` (500; also 403, 404, 410, 503) instead of the file",
        cdn_html="200 with an HTML page",
        cdn_empty="200 with an empty body",
        cdn_corrupt="the right length, but bytes that are no MP4",
        cdn_reset="reset instead of an answer",
        cdn_redirect="302 to the same file, once",
        cdn_redirect_loop="302 to itself, for ever",
        cdn_redirect_private="302 to `value` (http://169.254.169.254/latest/meta-data/)",
    ),
}

FAULT_POINTS: Final[Mapping[str, FaultPoint]] = {kind.name: kind.point for kind in FAULTS.values()}
