"""How long a download goes on, and what a CDN's headers mean: tables, no sockets."""

from __future__ import annotations

import pytest

from pipeline.download.redirects import ForbiddenUrl
from pipeline.download.response_headers import (
    ByteRange,
    Validators,
    declares_page,
    is_compressed,
    parse_byte_range,
    unsatisfied_total,
)
from pipeline.download.resumable_get import Unreachable, UrlExpired
from pipeline.download.retry_state import DownloadLimits, RetryState
from pipeline.download.stall import StallDetector

LIMITS = DownloadLimits(
    max_attempts=4,
    max_unreachable_s=60,
    initial_backoff_s=1,
    max_backoff_s=8,
    conclusive_fetches=3,
    max_full_fetches=5,
)


def make_retry_state() -> RetryState:
    return RetryState(LIMITS, random=lambda: 1.0)


def test_waits_grow_with_jitter_until_the_tries_are_used_up() -> None:
    it = make_retry_state()
    assert [it.next_delay_s(0, 0.0) for _ in range(4)] == [2.0, 4.0, 8.0, None]
    assert RetryState(LIMITS, random=lambda: 0.0).next_delay_s(0, 0.0) == 1.0


def test_progress_is_never_out_of_tries() -> None:
    it = make_retry_state()
    assert all(it.next_delay_s(held, 0.0) == 1.0 for held in range(1, 100))


def test_starting_over_for_ever_is_not_progress() -> None:
    it = make_retry_state()
    waits = [it.next_delay_s(held, 0.0) for held in (500, 400, 500, 300, 500)]
    assert waits[0] is not None
    assert waits[-1] is None


def test_outage_is_tolerated_for_patience_s() -> None:
    it = make_retry_state()
    for second in range(60):
        it.record_error(Unreachable("no answer"))
        assert it.next_delay_s(0, float(second)) is not None
    it.record_error(Unreachable("no answer"))
    assert it.next_delay_s(0, 60.0) is None


def test_response_resets_outage_timer() -> None:
    it = make_retry_state()
    for second in range(10):
        it.record_error(Unreachable("no answer"))
        it.next_delay_s(0, float(second))
    it.record_error(UrlExpired("403"))
    assert it.next_delay_s(0, 11.0) is None


def test_a_refused_url_is_not_asked_for_long() -> None:
    it = make_retry_state()
    it.record_error(ForbiddenUrl("no"))
    assert it.next_delay_s(0, 0.0) is not None
    it.record_error(ForbiddenUrl("no"))
    assert it.next_delay_s(0, 0.0) is None


def test_what_the_server_asks_to_wait_is_waited_within_bounds() -> None:
    it = make_retry_state()
    it.record_error(UrlExpired("429", retry_after_s=5))
    assert it.next_delay_s(0, 0.0) == 5
    it.record_error(UrlExpired("429", retry_after_s=500))
    assert it.next_delay_s(0, 0.0) == 8


def test_the_same_bytes_thrice_are_a_proof_and_other_bytes_five_times() -> None:
    it = make_retry_state()
    assert [it.record_full_fetch("a") for _ in range(3)] == [False, False, True]
    it = make_retry_state()
    assert [it.record_full_fetch(name) for name in "abcde"] == [False, False, False, False, True]


def test_a_stall_is_a_rate_over_a_window() -> None:
    meter = StallDetector(window_s=10, min_bytes_per_s=100, window_started_at=0.0)
    assert meter.deadline == 10
    assert not meter.add(999, 9.0)
    assert meter.add(1, 9.5)
    assert meter.deadline == 19.5
    assert not meter.add(10**9, 10.0)  # no timer is moved more often than four times a window
    assert meter.add(1, 12.0)


ME = Validators("https://cdn/a", etag='"e"', last_modified="Mon", total_bytes=10)
PAIRS = [
    (ME, ME, True),
    (ME, Validators("https://other/b", etag='"e"', total_bytes=10), True),
    (ME, Validators("https://cdn/a", etag='"f"', total_bytes=10), False),
    (ME, Validators("https://cdn/a", etag='"e"', total_bytes=11), False),
    (ME, Validators("https://cdn/a"), True),
    (ME, Validators("https://other/b"), False),
    (Validators("p", etag='W/"e"'), Validators("p", etag='W/"e"'), True),
    (Validators("p", etag='W/"e"'), Validators("q", etag='W/"e"'), False),
    (Validators("p"), Validators("p", resumable=False), False),
]


@pytest.mark.parametrize(("mine", "theirs", "same"), PAIRS)
def test_which_bytes_may_be_put_together(mine: Validators, theirs: Validators, same: bool) -> None:
    assert mine.matches(theirs) is same


def test_validators_that_are_strong_enough() -> None:
    assert Validators("p", etag='"e"', last_modified="Mon").if_range == '"e"'
    assert Validators("p", etag='W/"e"', last_modified="Mon").if_range == ""
    assert Validators("p", last_modified="Mon").if_range == "Mon"


def test_an_origin_survives_being_written_down() -> None:
    assert Validators.from_text(ME.to_text()) == ME
    assert Validators.from_text("") is None


RANGES = [
    (200, {"Content-Length": "10"}, ByteRange(0, 10, 10)),
    (200, {}, ByteRange(0, None, None)),
    (206, {"Content-Range": "bytes 4-9/10"}, ByteRange(4, 6, 10)),
    (206, {"Content-Range": "Bytes 4-9/*"}, ByteRange(4, 6, None)),
    (206, {"Content-Range": "bytes 9-4/10"}, None),
    (206, {"Content-Range": "bytes 4-10/10"}, None),
    (206, {"Content-Range": "items 4-9/10"}, None),
    (206, {}, None),
    (206, {"Content-Range": "bytes 4-9/10", "Content-Length": "6"}, ByteRange(4, 6, 10)),
    (206, {"Content-Range": "bytes 4-9/10", "Content-Length": "7"}, None),
    (206, {"Content-Range": f"bytes 4-{'9' * 5000}/*"}, None),
    (200, {"Content-Length": "9" * 5000}, ByteRange(0, None, None)),
    (200, {"Content-Length": "ten"}, ByteRange(0, None, None)),
]


@pytest.mark.parametrize(("status", "headers", "span"), RANGES)
def test_what_an_answer_carries(status: int, headers: dict[str, str], span: ByteRange | None) -> None:
    assert parse_byte_range(status, headers) == span


def test_other_headers() -> None:
    assert unsatisfied_total({"Content-Range": "bytes */12"}) == 12
    assert unsatisfied_total({"Content-Range": f"bytes */{'9' * 5000}"}) is None
    assert unsatisfied_total({}) is None
    assert is_compressed({"Content-Encoding": "gzip"})
    assert not is_compressed({"Content-Encoding": "identity"})
    assert declares_page({"Content-Type": "text/html; charset=utf-8"})
    assert not declares_page({"Content-Type": "video/mp4"})
    assert not declares_page({})
