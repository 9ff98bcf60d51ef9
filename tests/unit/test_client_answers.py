"""What the client makes of every answer: by status, by header, by body, for each of its calls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.client import (
    Accepted,
    AccountBlocked,
    CreateResult,
    GenerationStatus,
    LogPage,
    OutcomeUnknown,
    Phase,
    RateLimited,
    Rejected,
    RetryableRejection,
    StatusError,
    TransactionPage,
)
from pipeline.client.account import KeyInfo
from pipeline.client.create_result import LOOKUP_WAITS_S
from pipeline.client.json_values import hide_parameters
from pipeline.errors import StopReason
from tests.unit.mocked_vendor import (
    BASE_URL,
    GENERATIONS_URL,
    QUEUED,
    SECRET,
    create,
    error_body,
    get_status,
    mocked_vendor,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE: list[tuple[int, str, type, StopReason | str | None]] = [
    (200, "", Accepted, None),
    (201, "", Accepted, None),
    (202, "", Accepted, None),
    (400, "duration must be 4, 6 or 8", Rejected, "refused"),
    (405, "no", RetryableRejection, None),
    (409, "no", OutcomeUnknown, None),
    (413, "too large", Rejected, "refused"),
    (415, "no such type", RetryableRejection, None),
    (422, "prompt is too long", Rejected, "refused"),
    (404, "Model x was not found", Rejected, "not_found"),
    (401, "Invalid API key", AccountBlocked, StopReason.KEY),
    (402, "Payment required", AccountBlocked, StopReason.CREDITS),
    (403, "You've run out of credits", AccountBlocked, StopReason.CREDITS),
    (429, "Too many requests", RateLimited, None),
    (429, "Too many generations at once", RateLimited, None),
    (429, "the free-tier limit of 10 requests for the hour", AccountBlocked, StopReason.QUOTA),
    (425, "Too early", OutcomeUnknown, None),
    (421, "Misdirected", OutcomeUnknown, None),
    (460, "The client went away", OutcomeUnknown, None),
    (499, "The client went away", OutcomeUnknown, None),
    (500, "Internal error", RetryableRejection, None),
    (503, "Unavailable", RetryableRejection, None),
    (502, "Bad gateway", OutcomeUnknown, None),
    (504, "Gateway timeout", OutcomeUnknown, None),
    (520, "Odd", OutcomeUnknown, None),
    (408, "Request timeout", OutcomeUnknown, None),
    (301, "", AccountBlocked, StopReason.UNREACHABLE),
    (307, "", AccountBlocked, StopReason.UNREACHABLE),
    (303, "", OutcomeUnknown, None),
    (300, "", OutcomeUnknown, None),
]


def detail_of(result: CreateResult) -> StopReason | str | None:
    match result:
        case AccountBlocked(reason=reason):
            return reason
        case Rejected(failure=failure):
            return failure.code
        case _:
            return None


@pytest.mark.parametrize(("status", "message", "kind", "detail"), TABLE)
async def test_every_status_of_a_create(
    status: int, message: str, kind: type, detail: StopReason | str | None
) -> None:
    result = await create(status, QUEUED if status < 300 else error_body(status, message))
    assert isinstance(result, kind)
    assert detail_of(result) == detail
    assert status < 400 or message in repr(result).replace("\\'", "'")
    assert not isinstance(result, RetryableRejection) or result.reached


@pytest.mark.parametrize(
    "body",
    [b"", b"<html><h1>Sorry</h1></html>", b"\xff\xfe", b"[]", b'{"message": ["a", "b"]}', b"{" * 5000],
)
@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Rejected), (429, RateLimited), (500, RetryableRejection), (502, OutcomeUnknown)],
)
async def test_an_odd_body_changes_nothing_about_a_status(status: int, kind: type, body: bytes) -> None:
    result = await create(status, body)
    assert isinstance(result, kind)
    repr(result).encode()


@pytest.mark.parametrize(
    ("payload", "identity"),
    [
        ({"id": "812d:google/veo", "status": "queued"}, "812d:google/veo"),
        ({"id": 4711, "status": "queued"}, "4711"),
        ({"generation_id": "-V1StGXR8_Z5", "status": "waiting"}, "-V1StGXR8_Z5"),
        ({"id": "x"}, "x"),
    ],
)
async def test_an_acceptance_is_read_with_its_id(payload: dict[str, Any], identity: str) -> None:
    result = await create(200, payload, {"x-inference-id": "another"})
    assert isinstance(result, Accepted)
    assert result.generation_id == identity


async def test_a_final_answer_to_a_create_is_read_as_one() -> None:
    done = await create(201, {"id": "g", "status": "completed", "video": {"url": "https://c/x.mp4"}})
    assert isinstance(done, Accepted)
    assert done.generation_status.phase is Phase.COMPLETED
    bad = await create(200, {"status": "error", "error": {"message": "blocked by policy"}})
    assert isinstance(bad, Rejected)
    assert bad.failure.code == "content_refused"


async def test_a_wait_that_was_asked_for_is_handed_on() -> None:
    result = await create(429, error_body(429, "slow down"), {"Retry-After": "12"})
    assert result == RateLimited("HTTP 429: slow down", "12")
    quota = await create(429, error_body(429, "free-tier limit for the hour"), {"Retry-After": "1800"})
    assert isinstance(quota, AccountBlocked)
    assert quota.retry_after == "1800"


async def test_a_refused_key_names_the_variable_and_a_wrong_address_the_url() -> None:
    assert "AIML_API_KEY" in repr(await create(401, error_body(401, "no")))
    assert GENERATIONS_URL in repr(await create(404, error_body(404, "Cannot POST")))


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientOSError(104, "reset"),
        TimeoutError(),
        OSError(),
        aiohttp.ClientPayloadError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_never_had_a_connection_was_never_sent(error: Exception) -> None:
    async with mocked_vendor() as vendor:
        vendor.fail("POST", GENERATIONS_URL, error)
        result = await vendor.api.create("{}", "c")
        assert isinstance(result, RetryableRejection)
        assert (result.reached, BASE_URL in result.message) == (False, True)
        vendor.fail("GET", f"{GENERATIONS_URL}?generation_id=g", error)
        seen = await vendor.api.get_status("g")
        assert isinstance(seen, StatusError)
        assert seen.http_status == 0


@pytest.mark.parametrize("status", [408, 409, 421, 460, 499, 502, 504, 520])
@pytest.mark.parametrize(
    ("known", "accepted"),
    [
        ([(200, {"id": "g-1", "status": "generating"})], True),
        ([(404, error_body(404, "no")), (200, {"id": "g-1", "status": "completed"})], True),
        ([(200, {"id": "another", "status": "generating"}), (404, b"")], False),
        ([(404, b""), (502, b"<html>")], False),
    ],
)
async def test_the_id_in_an_error_is_polled_before_the_row_is_in_doubt(
    status: int, known: list[tuple[int, Any]], accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.client.client.LOOKUP_WAITS_S", dict.fromkeys(LOOKUP_WAITS_S, (0.0, 0.0)))
    async with mocked_vendor() as vendor:
        vendor.add("POST", GENERATIONS_URL, status, b"<html>", {"x-inference-id": "g-1"})
        for code, body in known:
            vendor.add("GET", f"{GENERATIONS_URL}?generation_id=g-1", code, body)
        result = await vendor.api.create("{}", "c")
    assert isinstance(result, Accepted if accepted else OutcomeUnknown)
    assert not isinstance(result, Accepted) or result.generation_id == "g-1"


GENERATING: tuple[int, object] = (200, {"id": "g-1", "status": "generating"})
NOT_FOUND: tuple[int, object] = (404, b"")
REFUSED: tuple[int, object] = (200, {"id": "g-1", "status": "error", "error": {"message": "refused"}})


@pytest.mark.parametrize(
    ("status", "known", "kind"),
    [
        *[(status, [GENERATING], Accepted) for status in (400, 401, 402, 403, 404, 413, 422, 500, 503)],
        *[(status, [NOT_FOUND, GENERATING], Accepted) for status in (500, 503)],
        *[(status, [NOT_FOUND, NOT_FOUND], RetryableRejection) for status in (500, 503)],
        *[(status, [(503, b""), (502, b"")], RetryableRejection) for status in (500, 503)],
        *[(status, [REFUSED], RetryableRejection) for status in (500, 503)],
        *[(status, [REFUSED], Rejected) for status in (400, 422)],
        *[(status, [NOT_FOUND], Rejected) for status in (400, 413, 422)],
        *[(status, [(503, b"")], Rejected) for status in (400, 413, 422)],
        (401, [(401, b"")], AccountBlocked),
        *[(status, [NOT_FOUND], AccountBlocked) for status in (402, 403)],
        (429, [], RateLimited),
    ],
)
async def test_a_refusal_that_names_a_generation_is_believed_once_that_was_asked_for(
    status: int, known: list[tuple[int, object]], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer fewer, and the request for it fails; one more, and it is left over."""
    no_waits = {result: (0.0,) * len(waits) for result, waits in LOOKUP_WAITS_S.items()}
    monkeypatch.setattr("pipeline.client.client.LOOKUP_WAITS_S", no_waits)
    async with mocked_vendor() as vendor:
        vendor.add("POST", GENERATIONS_URL, status, error_body(status, "no"), {"x-inference-id": "g-1"})
        for code, body in known:
            vendor.add("GET", f"{GENERATIONS_URL}?generation_id=g-1", code, body)
        result = await vendor.api.create("{}", "c")
        polls = [url for method, url, _ in vendor.requests if method == "GET"]
    assert isinstance(result, kind)
    assert len(polls) == len(known)


async def test_a_refusal_that_names_nothing_is_not_looked_up() -> None:
    async with mocked_vendor() as vendor:
        vendor.add("POST", GENERATIONS_URL, 503, error_body(503, "no"))
        assert isinstance(await vendor.api.create("{}", "c"), RetryableRejection)
        assert len(vendor.requests) == 1


def test_no_refusal_holds_its_row_for_seconds() -> None:
    waits_s = {kind: sum(waits) for kind, waits in LOOKUP_WAITS_S.items()}
    assert waits_s == {OutcomeUnknown: 2.0, RetryableRejection: 0.5, Rejected: 0.0, AccountBlocked: 0.0}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 429, 500, 502, 503, 301])
async def test_a_refused_poll_is_an_error_with_its_status(status: int) -> None:
    headers = {"Retry-After": "7", "Location": "/elsewhere"}
    seen = await get_status(status, error_body(status, "no"), headers)
    assert seen == StatusError(status, f"HTTP {status}: no", "7")


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b"<html>", b"\xff", b"null", b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}"]
)
async def test_an_unreadable_status_is_an_error_and_nothing_more(body: bytes) -> None:
    seen = await get_status(200, body)
    assert isinstance(seen, StatusError)
    assert 0 < len(seen.message) < 1000


@pytest.mark.parametrize("identity", ["another", "h", "G", " g"])
async def test_a_status_of_another_generation_is_not_applied(identity: str) -> None:
    body = {"id": identity, "status": "completed", "video": {"url": "https://c/x"}}
    seen = await get_status(200, body)
    assert isinstance(seen, StatusError)
    assert seen.misdirected
    same = await get_status(200, {**body, "id": "g"})
    assert isinstance(same, GenerationStatus)
    assert same.video_url == "https://c/x"


@pytest.mark.parametrize(
    ("status", "body", "balance"),
    [
        (200, {"current_balance": 12.5, "currency": "USD"}, 12.5),
        (200, {"current_balance": 0}, 0.0),
        (200, {"current_balance": -1.5}, -1.5),
        (200, {"current_balance": "12"}, None),
        (200, {"current_balance": True}, None),
        (200, {}, None),
        (200, b"<html>", None),
        (500, {"current_balance": 1}, None),
    ],
)
async def test_the_balance_is_a_number_or_nothing(status: int, body: object, balance: float | None) -> None:
    async with mocked_vendor() as vendor:
        vendor.add("GET", f"{BASE_URL}/v2/billing", status, body)
        assert await vendor.api.balance() == balance


async def test_the_log_and_the_charges_are_asked_for_as_documented() -> None:
    window = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}
    rows = {"data": [{"client_request_id": "c", "inference_id": "g"}], "pagination": {"has_more": False}}
    charge = {"type": "MODEL_USAGE", "reference_id": "g", "created_at": "t", "amount": {"usd": 1}}
    async with mocked_vendor() as vendor:
        query = "start=2026-01-01T00:00:00Z&end=2026-01-02T00:00:00Z&limit=9&offset=18"
        vendor.add("GET", f"{BASE_URL}/v2/logs?{query}&key_prefix=sk-hush-", 200, rows)
        page = await vendor.api.log_page(window, limit=9, offset=18, key_prefix="sk-hush-")
        assert isinstance(page, LogPage)
        assert [row.inference_id for row in page.rows] == ["g"]
        paging = {"data": [charge, {"type": "TOP_UP"}], "pagination": {"next_cursor": "n"}}
        vendor.add("GET", f"{BASE_URL}/v2/billing/transactions?limit=5&cursor=a/b", 200, paging)
        charges = await vendor.api.transactions(cursor="a/b", limit=5)
    assert isinstance(charges, TransactionPage)
    assert ([row.reference_id for row in charges.rows], charges.next_cursor) == (["g"], "n")


CALLS = {
    f"{BASE_URL}/v2/logs?period=24h&limit=1&offset=0": "log",
    f"{BASE_URL}/v2/billing/transactions?limit=100": "transactions",
    f"{BASE_URL}/v1/key": "key",
}


@pytest.mark.parametrize("url", CALLS, ids=CALLS.get)
@pytest.mark.parametrize(
    ("status", "body"), [(200, b"<html>"), (200, b"[]"), (200, b""), (403, b"no"), (500, b"")]
)
async def test_what_holds_no_answer_is_an_error_with_its_status(url: str, status: int, body: bytes) -> None:
    async with mocked_vendor() as vendor:
        vendor.add("GET", url, status, body)
        match CALLS[url]:
            case "log":
                seen: object = await vendor.api.log_page({"period": "24h"}, limit=1, offset=0)
            case "transactions":
                seen = await vendor.api.transactions()
            case _:
                seen = await vendor.api.key_info()
    assert isinstance(seen, StatusError)
    assert seen.http_status == status
    assert seen.message


async def test_every_request_carries_the_key_and_follows_no_redirect() -> None:
    async with mocked_vendor() as vendor:
        vendor.add("POST", GENERATIONS_URL, 307, b"", {"Location": "https://elsewhere.example/"})
        vendor.add(
            "GET", f"{GENERATIONS_URL}?generation_id=g", 302, b"", {"Location": "https://elsewhere.example/"}
        )
        assert isinstance(await vendor.api.create("{}", "vb.x.1"), AccountBlocked)
        assert isinstance(await vendor.api.get_status("g"), StatusError)
        requests = vendor.requests
    assert [(method, url.partition("?")[0]) for method, url, _ in requests] == [
        ("POST", GENERATIONS_URL), ("GET", GENERATIONS_URL),
    ]  # fmt: skip
    for _, _, arguments in requests:
        assert arguments["headers"]["Authorization"] == f"Bearer {SECRET}"
        assert arguments["allow_redirects"] is False
    assert requests[0][2]["headers"]["X-Client-Request-Id"] == "vb.x.1"


ECHO = json.dumps({"message": f"Incorrect API key provided: {SECRET}", "error": {"message": SECRET}}).encode()


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 502])
async def test_a_vendor_that_repeats_the_key_does_not_make_us_say_it(status: int) -> None:
    assert SECRET not in repr(await create(status, ECHO))
    assert SECRET not in repr(await get_status(status, ECHO))


NUMBERS = st.sampled_from(
    [0, -1, 4711, 10**400, 0.5, float("inf"), float("-inf"), float("nan"), "0.6", "1e999"]
)
WORDS = st.sampled_from(["queued", "completed", "error", "https://c/x", "MODEL_USAGE", "day", "", "\ud800\0"])
SCALARS = NUMBERS | WORDS | st.none() | st.booleans()
ANYTHING = st.recursive(
    SCALARS | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def shaped(*names: str, **inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object that has some of the documented fields, each with anything in it."""
    return (
        st.fixed_dictionaries({}, optional={**dict.fromkeys(names, NUMBERS | WORDS | ANYTHING), **inner})
        | ANYTHING
    )


AMOUNT = shaped("usd", "credits")
ROW = shaped("client_request_id", "inference_id", "status", "created", "type", "reference_id", cost=AMOUNT)
DOCUMENTS = shaped(
    *("id", "generation_id", "status", "error", "message", "detail", "requestId", "current_balance"),
    video=shaped("url") | st.lists(shaped("url"), max_size=2),
    meta=shaped(usage=shaped("credits_used", "usd_spent")),
    data=st.lists(ROW, max_size=3) | shaped("scopes", "disabled", limit=shaped("retention", "threshold")),
    pagination=shaped("has_more", "total", "next_cursor"),
)
BODIES = st.binary(max_size=60) | DOCUMENTS.map(lambda value: json.dumps(value).encode())
HEADER_NAMES = [
    "x-inference-id", "x-request-id", "Retry-After", "Date", "x-aimlapi-usd-spent", "x-aimlapi-credits-used",
    "Content-Type", "Location",
]  # fmt: skip
HEADER_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30)
HEADERS = st.dictionaries(st.sampled_from(HEADER_NAMES), HEADER_VALUES)


@given(st.just(200) | st.integers(200, 599), HEADERS, BODIES)
@settings(max_examples=100)
async def test_no_answer_raises_and_each_gives_a_typed_value(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    """Whatever the status, the headers and the bytes are. A result is one that any file can hold."""
    headers.pop("x-inference-id" if status >= 300 else "", None)
    created = await create(status, body, headers)
    assert isinstance(created, CreateResult)
    assert status < 300 or not isinstance(created, Accepted)
    polled = await get_status(status, body, headers)
    assert isinstance(polled, GenerationStatus | StatusError)
    results: list[object] = [created, polled]
    async with mocked_vendor() as vendor:
        for url in (*CALLS, f"{BASE_URL}/v2/billing"):
            vendor.add("GET", url, status, body, headers)
        results += [await vendor.api.log_page({"period": "24h"}, limit=1, offset=0)]
        results += [await vendor.api.transactions(), await vendor.api.key_info(), await vendor.api.balance()]
        assert vendor.api.vendor_now() is None or isinstance(vendor.api.vendor_now(), float)
    kinds: list[Any] = [CreateResult, GenerationStatus | StatusError, LogPage | StatusError]
    kinds += [TransactionPage | StatusError, KeyInfo | StatusError, float | None]
    assert [isinstance(result, kind) for result, kind in zip(results, kinds, strict=True)] == [True] * 6
    repr(results).encode()


S3_LINK = "https://stills.s3.amazonaws.com/p/ab.jpg?X-Amz-Date=20260101T000000Z&X-Amz-Signature=deadbeefcafe"
SIGNED_LINKS = (
    S3_LINK,
    "https://storage.googleapis.com/b/o?X-Goog-Expires=60&X-Goog-Signature=deadbeefcafe",
    "https://account.blob.core.windows.net/c/b?sv=2020&sp=r&sig=deadbeefcafe%2B%3D",
)
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "quoted": lambda link: f"<a href='{link}'>",
    "without its host": lambda link: link.partition(".com")[2],
    "as HTML": lambda link: link.replace("&", "&amp;"),
    "as JSON": lambda link: link.replace("&", "\\u0026").replace("/", "\\/"),
    "in a URL": lambda link: "https://proxy.example.com/?url=" + quote(link, safe=""),
    "encoded": lambda link: quote(link, safe=""),
    "encoded twice": lambda link: quote(quote(link, safe=""), safe=""),
    "broken up": lambda link: link.replace("&", " & "),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_signed_link_that_the_vendor_repeats_is_not_kept(spelling: str) -> None:
    for link in SIGNED_LINKS:
        shown = hide_parameters(f"could not fetch {SPELLINGS[spelling](link)} (HTTP 403), try again")
        assert "deadbeef" not in shown
        assert shown.startswith("could not fetch ")
        assert shown.endswith("(HTTP 403), try again")


def test_what_is_no_parameter_stays() -> None:
    for text in ("Is 50% = half? Yes.", "black & white, 16:9", "why?=no", "a=b and c=d", "R&D department"):
        assert hide_parameters(text) == text


def test_a_text_that_looks_like_parameters_throughout_is_searched_in_time() -> None:
    text = "%26a" * 100_000
    assert hide_parameters(text) == text
