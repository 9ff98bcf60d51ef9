"""The names of all faults: where each acts and what it does, for `--list-faults`, docs and the injector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.sandbox.faults.broken_responses import ODD_HEADS
from pipeline.sandbox.faults.injector import FaultPoint
from pipeline.sandbox.faults.status_changes import BAD_URLS

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One way to misbehave: its name, where it acts, and what it does."""

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
        key_disabled="403: the key is disabled, and `/v1/key` says so; not accepted",
        key_scope="403: the key lacks the scope model:video, and `/v1/key` says so; not accepted",
        key_limit="403: the key's limit in USD is reached, and `/v1/key` says so; not accepted",
        firewall="403 with a firewall's HTML page; `value` json: a JSON error; not accepted",
        refused="`value` (409; also 402, 421, 460, 499) with the API's error body; not accepted",
        not_found="404; not accepted",
        throttled="429; `value`: Retry-After in seconds, a date or date:SECONDS; not accepted",
        quota="429 that names the free tier's hourly limit; not accepted",
        server_error="500; not accepted",
        unavailable="503 with an HTML page; not accepted",
        gateway_lost="`value` (502; also 504, 408) from a gateway; not accepted",
        gateway_accepted="`value` (502; also 504, 408) from a gateway although the create was accepted",
        error_accepted="`value` (409; also 421, 460, 499) with the API's error body although it was accepted",
        cut_before="reset once the body was read; not accepted",
        cut_accepted="accepted, then reset before any answer",
        cut_inside_answer="accepted, then cut in the middle of the answer",
        garbage="accepted, answered 200 with bytes that are not JSON",
        html="accepted, answered 200 with an HTML page",
        empty="accepted, answered 200 with nothing",
        no_id="accepted, answered 200 with JSON that has no id",
        id_of_another="accepted, answered with the id of another generation",
        odd_head="accepted, answered with a head that some parsers refuse: `value` (many-headers) is "
        + ", ".join(ODD_HEADS),
        huge_header="accepted, answered with one header of `value` (12000) bytes",
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
        status_garbage="200 with bytes that are not JSON",
        status_html="200 with an HTML page",
        status_empty="200 with nothing",
        status_hang="never answers",
        status_unknown="a status that no document names: `value` (reticulating)",
        status_samples="`video` and `error` are sample objects while in progress",
        status_other_names="processing, pending, complete, succeeded, failed, cancelled for the usual names",
        status_not_found="404 for a generation that exists; without *TIMES for good",
        status_unauthorized="401 although the key is right",
        status_flap="`error` although nothing failed; with *1, the next answer is true again",
        status_other_id="about another generation than the one in the query, with its id and its video",
        status_odd_head="with a head that some parsers refuse; `value` as for odd-head",
        status_huge_header="with one header of `value` (12000) bytes",
    ),
    **_fault_kinds(
        FaultPoint.GENERATION,
        error="ends in `error` with a name and a message",
        error_detail="ends in `error` with a list of details",
        error_text="ends in `error` with a plain string",
        content_refusal="ends in `error`: refused by the safety filter",
        completed_without_url="ends in `completed` without a video URL",
        completed_late_url="`completed` without a video URL in the first `value` (1) answers after the end",
        error_then_completed="`error` in the first `value` (1) answers after the end, then `completed`",
        completed_then_error="`completed`, and charged, in the first `value` (1) answers, then `error`",
        bad_url="the video's URL is one that parsers refuse: `value` (port) is "
        + ", ".join(BAD_URLS)
        + ", or any text",
        video_list="`video` is a list of `value` (2) clips, each of which is charged",
        usd_missing="says what it cost in credits, not in USD",
        cost_missing="does not say what it cost",
        id_as_generation_id="answers `generation_id` in place of `id`",
        sample_objects="sample objects as `video` and `error` until the end; `value` empty: {}",
        never_finishes="renders forever",
        slow="renders `value` (10) times longer",
    ),
    **_fault_kinds(
        FaultPoint.LOG_ROW,
        log_row_never="the generation's row never shows in the log",
        log_row_anonymous="the generation's row has no client_request_id",
        log_row_late="the generation's row shows `value` (3600) vendor's seconds later than the others",
    ),
    **_fault_kinds(
        FaultPoint.LOG_CALL,
        log_error="`value` (500) from the log",
        log_garbage="200 with bytes that are not JSON from the log",
        log_throttled="429 from the log; `value`: Retry-After",
        log_forbidden="403 from the log; without *TIMES for good",
        log_hang="the log never answers",
        log_odd_head="with a head that some parsers refuse; `value` as for odd-head",
        log_huge_header="with one header of `value` (12000) bytes",
        log_frozen="the log stands still: it shows the first `value` (0) rows only",
        log_lagging="every row shows `value` (3600) vendor's seconds late",
        log_behind="the answer comes from a replica that lacks the newest `value` (5) rows",
        log_forked="pages after the first come from a replica that lacks the newest `value` (5) rows",
        log_retention="rows older than `value` (86400) vendor's seconds are gone",
    ),
    **_fault_kinds(
        FaultPoint.ACCOUNT,
        account_error="`value` (500) from billing, transactions and the key's own call",
        transactions_frozen="transactions stand still: they show the first `value` (0) only",
    ),
    **_fault_kinds(
        FaultPoint.CATALOG,
        catalog_error="`value` (500) from the model list, a card, the OpenAPI and the deprecations",
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
        cdn_corrupt="the right length, but bytes that are not an MP4",
        cdn_reset="reset instead of an answer",
        cdn_redirect="302 to the same file, once",
        cdn_redirect_loop="302 to itself, forever",
        cdn_redirect_bad="302 to a URL that parsers refuse; `value` as for bad-url",
        cdn_chunk_broken="chunked; after `value` (0.5) of the file a proxy's error page in place of a chunk",
        cdn_huge_header="with one header of `value` (12000) bytes",
        cdn_odd_head="with a head that some parsers refuse; `value` as for odd-head",
        cdn_trailing_bytes="a playable MP4 with a few bytes after its last box",
        cdn_bad_metadata="a playable MP4 whose comment is not UTF-8",
        cdn_turned="a playable MP4 with a display matrix of 90 degrees",
        cdn_encrypted="an MP4 whose video track is marked as encrypted",
        cdn_no_index="an MP4 without its index",
        cdn_redirect_private="302 to `value` (http://169.254.169.254/latest/meta-data/)",
    ),
}

FAULT_POINTS: Final[Mapping[str, FaultPoint]] = {kind.name: kind.point for kind in FAULTS.values()}
