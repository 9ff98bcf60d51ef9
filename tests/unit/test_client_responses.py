"""What the vendor's answers mean, name by name and shape by shape."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client.error_parsing import error_message, generation_failure, parse_error
from pipeline.client.json_values import MAX_MESSAGE_CHARS, UnreadableResponseError, excerpt, parse_object
from pipeline.client.responses import (
    COMPLETED_STATUSES,
    FAILED_STATUSES,
    RUNNING_STATUSES,
    Phase,
    merged_urls,
    parse_balance,
    parse_generation,
    video_urls,
)

URL = "https://cdn.example.com/a.mp4"
SAMPLES: dict[str, Any] = {
    "video": {"url": URL, "duration": 8},
    "error": {"name": "Error", "message": "a sample"},
}

PHASE_BY_STATUS = {
    "waiting": Phase.RUNNING,
    "active": Phase.RUNNING,
    "queued": Phase.RUNNING,
    "generating": Phase.RUNNING,
    "processing": Phase.RUNNING,
    "pending": Phase.RUNNING,
    "completed": Phase.COMPLETED,
    "complete": Phase.COMPLETED,
    "succeeded": Phase.COMPLETED,
    "error": Phase.FAILED,
    "failed": Phase.FAILED,
    "cancelled": Phase.FAILED,
    "canceled": Phase.FAILED,
    "reticulating": Phase.UNKNOWN,
    "done": Phase.UNKNOWN,
    "": Phase.UNKNOWN,
}


@pytest.mark.parametrize(("status", "phase"), PHASE_BY_STATUS.items())
def test_the_status_alone_decides(status: str, phase: Phase) -> None:
    """Sample objects in `video` and `error` change nothing while a generation is queued."""
    look = parse_generation({"id": "g", "status": status, **SAMPLES}, {})
    assert look.phase is phase
    assert look.video_url == (URL if phase is Phase.COMPLETED else "")
    assert (look.failure is not None) is (phase is Phase.FAILED)


@pytest.mark.parametrize("status", ["Queued", " COMPLETED ", "Error\n", "GENERATING"])
def test_a_status_is_read_in_any_case(status: str) -> None:
    assert (
        parse_generation({"status": status, **SAMPLES}, {}).phase is PHASE_BY_STATUS[status.strip().lower()]
    )


@pytest.mark.parametrize("status", [None, 7, True, ["completed"], {"status": "completed"}])
def test_a_status_that_is_no_text_is_unknown(status: object) -> None:
    assert parse_generation({"id": "g", "status": status, **SAMPLES}, {}).phase is Phase.UNKNOWN


def test_no_name_is_in_two_groups() -> None:
    assert len(RUNNING_STATUSES | COMPLETED_STATUSES | FAILED_STATUSES) == len(RUNNING_STATUSES) + len(
        COMPLETED_STATUSES
    ) + len(FAILED_STATUSES)


@pytest.mark.parametrize(
    ("payload", "identity"),
    [
        ({"id": "uuid:google/veo"}, "uuid:google/veo"),
        ({"id": "-V1StGXR8_Z5"}, "-V1StGXR8_Z5"),
        ({"id": 4711}, "4711"),
        ({"id": 0}, "0"),
        ({"generation_id": "old"}, "old"),
        ({"id": None, "generation_id": 12}, "12"),
        ({"id": "", "generation_id": "old"}, "old"),
        ({"id": "new", "generation_id": "old"}, "new"),
        ({"id": True}, ""),
        ({"id": 1.5}, ""),
        ({"id": {"a": 1}}, ""),
        ({"id": "a\ud800b"}, "a?b"),
        ({"id": "a\0b"}, "a\ufffdb"),
        ({}, ""),
    ],
)
def test_the_id_in_every_spelling(payload: dict[str, Any], identity: str) -> None:
    assert parse_generation(payload, {}).generation_id == identity


@pytest.mark.parametrize(
    ("video", "url"),
    [
        ({"url": URL}, URL),
        ({"url": f"  {URL}\n"}, URL),
        ({"url": "HTTPS://cdn.example.com/a.mp4"}, "HTTPS://cdn.example.com/a.mp4"),
        (URL, URL),
        ({"url": ""}, ""),
        ({"url": None}, ""),
        ({"url": 3}, ""),
        ({"url": [URL]}, ""),
        ({"url": "file:///etc/passwd"}, ""),
        ({"url": "javascript:alert(1)"}, ""),
        ({"url": "/relative.mp4"}, ""),
        ([{"url": URL}, {"url": "https://cdn.example.com/second.mp4"}], URL),
        ([URL], URL),
        ([[URL]], ""),
        ([None], ""),
        ({}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_where_the_video_is(video: object, url: str) -> None:
    assert "".join(video_urls({"video": video})[:1]) == url
    look = parse_generation({"id": "g", "status": "completed", "video": video}, {})
    assert look.phase is (Phase.COMPLETED if url else Phase.FAILED)


A, B, C = (f"https://cdn.example.com/{name}.mp4" for name in "abc")


@pytest.mark.parametrize(
    ("video", "urls"),
    [
        ([{"url": A}, {"url": B}], (A, B)),
        ([{"url": A}, {"url": None}], (A, "")),
        ([{"url": None}, {"url": B}], ("", B)),
        ([A, None, {}, B], (A, "", "", B)),
        ([A, A], (A,)),
        ([None, {}], ()),
    ],
)
def test_a_clip_without_a_url_keeps_its_place(video: object, urls: tuple[str, ...]) -> None:
    assert video_urls({"video": video}) == urls
    status = parse_generation({"id": "g", "status": "completed", "video": video}, {})
    assert status.urls == urls
    assert status.video_url == next(filter(None, urls), "")


@pytest.mark.parametrize(
    ("known", "fresh", "merged"),
    [
        ([""], (A,), (A,)),
        ([A], (B,), (B,)),
        ([A], (), (A,)),
        ([A], (A, B), (A, B)),
        ([A, ""], (A, B), (A, B)),
        ([A, B], (C, ""), (C, B)),
        ([A, B], ("", C), (A, C)),
        ([A, B], (C,), (C, B)),
        ([A, B], (B,), (A, B)),
        ([f"{A}?s=1", f"{B}?s=1"], (f"{B}?s=2",), (f"{A}?s=1", f"{B}?s=2")),
        ([f"{A}?n=1", f"{A}?n=2"], (f"{A}?n=3",), (f"{A}?n=3", f"{A}?n=2")),
    ],
)
def test_an_answer_that_names_fewer_clips_takes_none_back(
    known: list[str], fresh: tuple[str, ...], merged: tuple[str, ...]
) -> None:
    assert merged_urls(known, fresh) == merged


def test_completed_without_a_video_is_a_failure_that_keeps_the_answer() -> None:
    payload = {"id": "g", "status": "completed", "video": {}, "error": {"message": "lost it"}, "x": "y"}
    failure = parse_generation(payload, {}).failure
    assert failure is not None
    assert (failure.code, failure.retryable) == ("no_video", False)
    assert failure.message.startswith("lost it; completed without a video URL")
    assert '"x": "y"' in failure.message


def test_the_kept_answer_is_bounded() -> None:
    failure = parse_generation({"status": "completed", "x": "y" * 100_000}, {}).failure
    assert failure is not None
    assert len(failure.message) < MAX_MESSAGE_CHARS + 200


ERRORS: list[tuple[object, tuple[str, str]]] = [
    ({"name": "ProviderError", "message": "boom"}, ("ProviderError", "boom")),
    ({"code": "E42", "message": "boom"}, ("E42", "boom")),
    ({"message": "boom"}, ("", "boom")),
    ({"name": "ProviderError"}, ("ProviderError", "")),
    (
        {"detail": [{"loc": ["body", "prompt", 0], "msg": "too long", "type": "value_error"}]},
        ("", "body.prompt.0: too long (value_error)"),
    ),
    (
        {"detail": [{"loc": "body", "msg": "bad"}, {"msg": "worse"}, "text", 5]},
        ("", "body: bad; worse; text"),
    ),
    ({"detail": "plain"}, ("", "plain")),
    ("a plain string", ("", "a plain string")),
    ("  padded \n", ("", "padded")),
    ({"strange": 1}, ("", '{"strange": 1}')),
    ({"name": "X", "message": {"reason": "too dark"}}, ("X", '{"reason": "too dark"}')),
    ({"message": ["a", "b"]}, ("", '["a", "b"]')),
    ({"name": "X", "message": None}, ("X", "")),
    ([{"message": "boom"}, "bang"], ("", "boom; bang")),
    ({}, ("", "")),
    ("", ("", "")),
    (None, ("", "")),
    ([], ("", "")),
    (404, ("", "")),
]


@pytest.mark.parametrize(("error", "words"), ERRORS)
def test_every_shape_of_an_error(error: object, words: tuple[str, str]) -> None:
    assert parse_error(error) == words
    failure = generation_failure(error, "error")
    assert failure.message
    assert all(word in failure.message for word in words)


@pytest.mark.parametrize(
    ("error", "status", "code", "retryable"),
    [
        ({"name": "ProviderError", "message": "upstream timed out"}, "error", "generation_error", True),
        (None, "failed", "generation_error", True),
        ({}, "error", "generation_error", True),
        (None, "cancelled", "generation_error", False),
        (None, "canceled", "generation_error", False),
        ({"message": "Blocked by the safety filter"}, "error", "content_refused", False),
        ({"name": "ContentPolicyViolation", "message": "no"}, "error", "content_refused", False),
        ("The image is NSFW", "failed", "content_refused", False),
        (
            {"detail": [{"loc": ["x"], "msg": "m", "type": "value_error"}]},
            "error",
            "generation_refused",
            False,
        ),
        ({"message": "Invalid image"}, "error", "generation_refused", False),
    ],
)
def test_whether_another_generation_may_help(error: object, status: str, code: str, retryable: bool) -> None:
    failure = generation_failure(error, status)
    assert (failure.code, failure.retryable) == (code, retryable)


@pytest.mark.parametrize(
    ("payload", "headers", "credits_used", "usd"),
    [
        ({"meta": {"usage": {"credits_used": 120000}}}, {}, 120000, 0.06),
        ({"meta": {"usage": {"credits_used": "7"}}}, {}, 7, 3.5e-06),
        ({"meta": {"usage": {"credits_used": 5, "usd_spent": 0.4}}}, {}, 5, 0.4),
        ({}, {"x-aimlapi-usd-spent": "1.20", "x-aimlapi-credits-used": "9"}, 9, 1.2),
        (
            {"meta": {"usage": {"credits_used": 5, "usd_spent": 0.4}}},
            {"x-aimlapi-usd-spent": "1.20", "x-aimlapi-credits-used": "9"},
            5,
            1.2,
        ),
        ({"meta": {"usage": None}}, {}, None, None),
        ({"meta": None}, {"x-aimlapi-usd-spent": "free"}, None, None),
        ({"meta": []}, {"x-aimlapi-usd-spent": "-1"}, None, None),
        ({"meta": {"usage": {"credits_used": True}}}, {"x-aimlapi-usd-spent": "nan"}, None, None),
        ({"meta": {"usage": {"credits_used": [1]}}}, {"x-aimlapi-usd-spent": "1e999"}, None, None),
        ({"meta": {"usage": {"credits_used": 10**400}}}, {}, None, None),
    ],
)
def test_money_is_what_was_said_and_nothing_else(
    payload: dict[str, Any], headers: dict[str, str], credits_used: float | None, usd: float | None
) -> None:
    look = parse_generation({"status": "completed", **payload}, headers)
    assert (look.credits_used, look.usd_spent) == (credits_used, usd)


UNREADABLE = [
    b"",
    b" ",
    b"null",
    b"[]",
    b'"text"',
    b"3",
    b"<!doctype html><title>502</title>",
    b'{"id": ',
    b'{"id": "\xff\xfe"}',
    b"\xff\xfe\x00",
    b"{'id': 1}",
    b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"a": ' + b"9" * 10_000 + b"}",
]


@pytest.mark.parametrize("body", UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_is_no_object_is_unreadable_and_said_in_one_line(body: bytes) -> None:
    with pytest.raises(UnreadableResponseError) as caught:
        parse_object(body)
    assert 0 < len(str(caught.value)) <= 200
    assert str(caught.value).isprintable()


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert parse_object(b'\xef\xbb\xbf{"id": "a"}') == {"id": "a"}


@pytest.mark.parametrize(
    "error",
    [
        b'"a\\ud800\\u0000b"',
        b'{"message": "a\\ud800b"}',
        b'{"name": "a\\udfffb"}',
        b'{"detail": "a\\ud800b"}',
        b'{"detail": [{"loc": ["\\ud800"], "msg": "\\ud800", "type": "\\ud800"}]}',
    ],
)
def test_half_characters_become_whole_ones(error: bytes) -> None:
    body = b'{"status": "error", "error": ' + error + b"}"
    look = parse_generation(parse_object(body), {})
    assert look.failure is not None
    look.failure.message.encode()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"message": "Bad prompt", "statusCode": "400"}', "Bad prompt"),
        (b'{"message": ["a is wrong", "b is wrong"]}', "a is wrong; b is wrong"),
        (b'{"message": "Bad", "error": {"message": "inner"}}', "Bad; inner"),
        (b'{"message": "Bad", "error": "Bad"}', "Bad"),
        (b'{"detail": [{"loc": ["body", "duration"], "msg": "4, 6 or 8"}]}', "body.duration: 4, 6 or 8"),
        (b'{"message": "Bad", "errors": [{"path": "x"}]}', 'Bad; [{"path": "x"}]'),
        (b'{"message": "Bad", "issues": {"x": "y"}}', 'Bad; {"x": "y"}'),
        (b'{"message": "Bad", "details": [{"path": "x"}]}', 'Bad; [{"path": "x"}]'),
        (b'{"requestId": "r"}', '{"requestId": "r"}'),
        (b"<h1>502 Bad Gateway</h1>\n\nnginx", "<h1>502 Bad Gateway</h1> nginx"),
        (b"", "an empty body"),
    ],
)
def test_the_vendors_words_of_a_refusal(body: bytes, words: str) -> None:
    assert error_message(body) == words


@pytest.mark.parametrize("around", [b'{"errors": %s}', b'{"status": "error", "error": {"a": %s}}'])
@pytest.mark.parametrize("braces", [(b"[", b"]"), (b'{"a":', b"}")])
def test_no_depth_is_too_deep(around: bytes, braces: tuple[bytes, bytes]) -> None:
    """Some depths can just be read and no longer be written, depending on the Python."""
    for depth in (*range(900, 1010), 50_000):
        body = around % (braces[0] * depth + b"1" + braces[1] * depth)
        assert error_message(body)
        with contextlib.suppress(UnreadableResponseError):
            parse_generation(parse_object(body), {})


@pytest.mark.parametrize(
    ("body", "usd"),
    [
        (b'{"current_balance": 123.45, "currency": "USD"}', 123.45),
        (b'{"current_balance": 0}', 0.0),
        (b'{"current_balance": "123.45"}', None),
        (b'{"current_balance": -0.5}', -0.5),
        (b'{"current_balance": NaN}', None),
        (b'{"current_balance": Infinity}', None),
        (b'{"current_balance": 1' + b"0" * 400 + b"}", None),
        (b'{"current_balance": true}', None),
        (b'{"current_balance": null}', None),
        (b"{}", None),
        (b"[]", None),
        (b"<html>", None),
    ],
)
def test_what_is_on_the_account(body: bytes, usd: float | None) -> None:
    assert parse_balance(body) == usd


@given(st.binary(max_size=400))
def test_any_bytes_make_words_that_any_file_can_hold(body: bytes) -> None:
    for words in (error_message(body), excerpt(body)):
        assert words
        assert len(words) <= MAX_MESSAGE_CHARS
        words.encode()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["id", "generation_id", "status", "video", "error", "meta", "message", "detail", "data"]
)
STATUSES = st.sampled_from(sorted(RUNNING_STATUSES | COMPLETED_STATUSES | FAILED_STATUSES))


@given(st.dictionaries(NAMES, VALUES, max_size=6), STATUSES | VALUES)
def test_any_object_is_read_as_something(payload: dict[str, Any], status: Any) -> None:
    body = json.dumps({**payload, "status": status}).encode()
    look = parse_generation(parse_object(body), {"x-aimlapi-usd-spent": "x"})
    assert (look.failure is not None) is (look.phase is Phase.FAILED)
    assert bool(look.video_url) is (look.phase is Phase.COMPLETED)
    for text in (
        look.status,
        look.generation_id,
        look.video_url,
        look.failure.message if look.failure else "",
    ):
        text.encode()
    error_message(body)
