"""The whole table: what an answer to a create proves, by status, by header, by body. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pipeline.client.create_result import (
    Accepted,
    AccountBlocked,
    CreateResponse,
    CreateResult,
    NamingResult,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    RetryableRejection,
    apply_lookup,
    classify_create,
    is_quota,
)
from pipeline.client.responses import GenerationStatus, Phase, StatusError
from pipeline.errors import StopReason
from pipeline.model import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

URL = "https://api.example.com/v2/video/generations"
CLASSIC = {"message": "no", "path": "/v2", "requestId": "req-1", "statusCode": "400", "timestamp": "t"}
PROBLEM = {"title": "Bad", "status": 400, "message": "no", "instance": "/v2", "requestId": "req-2"}

REFUSED = (400, 404, 413, 422)
BLOCKED = (301, 302, 307, 308, 401, 402, 403)
NOT_READ = (405, 411, 414, 415, 431)
RETRYABLE = (*NOT_READ, 500, 503)
EXPECTED: dict[int, type[CreateResult]] = {
    **dict.fromkeys((200, 201, 202, 299), Accepted),
    **dict.fromkeys(REFUSED, Rejected),
    **dict.fromkeys(BLOCKED, AccountBlocked),
    **dict.fromkeys(RETRYABLE, RetryableRejection),
    429: RateLimited,
}


def classify(
    status: int, body: object = None, headers: Mapping[str, str] | None = None, *, raw: bytes | None = None
) -> CreateResult:
    data = raw if raw is not None else json.dumps(body or {"id": "g", "status": "queued"}).encode()
    return classify_create(CreateResponse(status, headers or {}, data, URL), "AIMLAPI_API_KEY")


@pytest.mark.parametrize("status", range(200, 600))
def test_every_status_has_its_place_and_what_is_not_documented_is_in_doubt(status: int) -> None:
    fallback = Accepted if status < 300 else OutcomeUnknown
    result = classify(status, {"id": "g", "status": "queued"} if status < 300 else CLASSIC)
    assert type(result) is EXPECTED.get(status, fallback)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, *NOT_READ])
def test_a_page_in_front_of_the_api_that_names_a_generation_refuses_nothing(status: int) -> None:
    result = classify(status, CLASSIC, {"x-inference-id": "g"})
    assert isinstance(result, OutcomeUnknown)
    assert result.inference_id == "g"


@pytest.mark.parametrize("status", NOT_READ)
def test_what_is_alike_for_all_rows_is_tried_again_and_names_the_address(status: int) -> None:
    result = classify(status, raw=b"<html>maintenance</html>")
    assert isinstance(result, RetryableRejection)
    assert result.reached
    assert URL in result.message


@pytest.mark.parametrize("status", [409, 421, 460, 499, 408, 410, 418, 425, 451, 501, 502, 504, 520, 524])
@pytest.mark.parametrize("raw", [b"", b"<html>", b"{", json.dumps(CLASSIC).encode()])
def test_an_answer_that_may_hide_an_acceptance_is_never_a_refusal(status: int, raw: bytes) -> None:
    assert isinstance(classify(status, raw=raw), OutcomeUnknown)


@pytest.mark.parametrize("status", [408, 502, 504, 409, 520])
def test_the_id_in_a_gateways_error_is_kept(status: int) -> None:
    result = classify(status, CLASSIC, {"x-inference-id": "g-1"})
    assert isinstance(result, OutcomeUnknown)
    assert result.inference_id == "g-1"


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, 500, 503])
def test_a_refusal_keeps_the_id_that_it_names(status: int) -> None:
    result = classify(status, CLASSIC, {"x-inference-id": "g-1"})
    assert type(result) is EXPECTED[status]
    assert isinstance(result, NamingResult)
    assert result.inference_id == "g-1"


REFUSAL = RetryableRejection("HTTP 503: no", reached=True, inference_id="g-1")
FINAL_REFUSALS: tuple[NamingResult, ...] = (
    Rejected(Failure("refused", "no"), inference_id="g-1"),
    AccountBlocked(StopReason.CREDITS, "no", inference_id="g-1"),
)
DOUBT = OutcomeUnknown("HTTP 502: no", "g-1")

MISSING, BUSY = StatusError(404, "HTTP 404: no"), StatusError(503, "HTTP 503: no")
SILENT, ANOTHERS = StatusError(0, "timed out"), StatusError(200, "about another", misdirected=True)
EMPTY = GenerationStatus(Phase.UNKNOWN, "")
QUEUED, ODD = GenerationStatus(Phase.RUNNING, "queued"), GenerationStatus(Phase.UNKNOWN, "dreaming")
ENDED = GenerationStatus(Phase.FAILED, "error", failure=Failure("E", "no"))
URLLESS = GenerationStatus(Phase.FAILED, "completed", failure=Failure("no_video", "no URL"))


@pytest.mark.parametrize("result", [REFUSAL, *FINAL_REFUSALS, DOUBT])
@pytest.mark.parametrize("status", [QUEUED, ODD, URLLESS])
@pytest.mark.parametrize("before", [(), (MISSING,), (BUSY,)])
def test_a_named_generation_that_the_vendor_knows_was_accepted(
    result: NamingResult, status: GenerationStatus, before: tuple[StatusError, ...]
) -> None:
    assert apply_lookup(result, [*before, status]) == Accepted("g-1", status)


@pytest.mark.parametrize("result", [REFUSAL, *FINAL_REFUSALS, DOUBT])
def test_a_named_generation_that_the_vendor_does_not_know_changes_nothing(result: NamingResult) -> None:
    assert apply_lookup(result, [MISSING, MISSING]) is result


@pytest.mark.parametrize(
    "answers", [[BUSY, BUSY], [SILENT, MISSING], [MISSING, SILENT], [MISSING, ANOTHERS], [EMPTY]]
)
@pytest.mark.parametrize("result", [REFUSAL, *FINAL_REFUSALS, DOUBT])
def test_a_lookup_that_settles_nothing_changes_nothing(
    result: NamingResult, answers: Sequence[GenerationStatus | StatusError]
) -> None:
    assert apply_lookup(result, answers) is result


def test_what_was_refused_and_has_failed_is_not_charged_and_stays_refused() -> None:
    for result in (REFUSAL, *FINAL_REFUSALS):
        assert apply_lookup(result, [ENDED]) is result
    assert apply_lookup(DOUBT, [ENDED]) == Accepted("g-1", ENDED)


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (CLASSIC, {}, "req-1"),
        (PROBLEM, {}, "req-2"),
        (CLASSIC, {"x-request-id": "head"}, "head"),
        ({"message": "no"}, {}, ""),
        ({"message": "no", "requestId": 7}, {}, "7"),
    ],
)
def test_the_request_id_of_either_shape_is_kept(
    body: dict[str, object], headers: Mapping[str, str], expected: str
) -> None:
    for status in (400, 404, 422):
        result = classify(status, body, headers)
        assert isinstance(result, Rejected)
        assert result.request_id == expected
    in_doubt = classify(409, body, headers)
    assert isinstance(in_doubt, OutcomeUnknown)
    assert in_doubt.request_id == expected


@pytest.mark.parametrize(
    ("message", "retry_after", "quota"),
    [
        ("You have reached the free-tier limit of 10 requests for the hour", None, True),
        ("Free tier exhausted", None, True),
        ("Your daily quota is used up", None, True),
        ("Limit of 100 generations per day reached", None, True),
        ("hourly limit exceeded", None, True),
        ("Too many requests", "3600", True),
        ("Too many requests", "600", True),
        ("Too many requests", "599", False),
        ("Too many requests", "5", False),
        ("Too many requests", "Wed, 21 Oct 2026 07:28:00 GMT", False),
        ("Too many requests", "9" * 400, True),
        ("Rate limit exceeded", None, False),
        ("Concurrency limit reached", None, False),
        ("", None, False),
        ("per day", None, False),
    ],
)
def test_quota_is_distinguished_from_rate_limit(message: str, retry_after: str | None, quota: bool) -> None:
    assert is_quota(message, retry_after) is quota


def test_an_acceptance_without_a_readable_body_is_found_by_its_header() -> None:
    assert isinstance(classify(200, raw=b"<html>"), OutcomeUnknown)
    result = classify(200, raw=b"<html>", headers={"x-inference-id": "g-1"})
    assert isinstance(result, Accepted)
    assert result.generation_id == "g-1"


@pytest.mark.parametrize("status", [200, 201, 302, 400, 401, 403, 404, 422, 429, 500, 503])
@pytest.mark.parametrize(
    ("echo", "is_ours"), [("vb.a.1", True), ("VB.a.1", True), ("", True), ("vb.b.1", False)]
)
def test_an_answer_that_names_another_request_proves_nothing(
    status: int, echo: str, *, is_ours: bool
) -> None:
    headers = {"x-client-request-id": echo} if echo else {}
    body = json.dumps({"id": "g", "status": "queued"} if status < 300 else CLASSIC).encode()
    result = classify_create(CreateResponse(status, headers, body, URL, "vb.a.1"), "AIMLAPI_API_KEY")
    assert isinstance(result, OutcomeUnknown) is not is_ours


def test_an_error_with_neither_id_nor_reason_may_hide_an_acceptance() -> None:
    fallback = {"status": "error", "message": "Service temporarily unavailable"}
    assert isinstance(classify(200, fallback), OutcomeUnknown)
    assert isinstance(classify(200, {"status": "error", "error": {"name": "x", "message": "no"}}), Rejected)
    assert isinstance(classify(200, {"status": "error", "error": "no"}), Rejected)
