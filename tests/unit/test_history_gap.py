"""What keeps the log from showing what an older copy of a ledger has forgotten."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest

from pipeline.client import LogRow
from pipeline.ledger.spending import Submission, SubmissionState, entry_of
from pipeline.model import Failure, Record, State
from pipeline.plan import GENERATION_UNKNOWN
from pipeline.reconcile.history_gap import HistoryGap, LastUse, find_gap, last_use, witnesses_of
from pipeline.reconcile.log_windows import DAY_S
from pipeline.reconcile.request_log import AnonymousRow, LogPass
from tests.unit.samples import record

NOW = 1_800_000_000.0
URL = "https://api.example.com"


def done(age_s: float = 9000.0, **facts: Any) -> Record:
    sent: dict[str, Any] = {
        "key_id": "key",
        "api_url": URL,
        "vendor_sent_at": NOW - age_s,
        "finished_at": NOW - age_s + 60,
    }
    return record(State.DONE, "row", **(sent | facts))


ROW = done()
LISTED = LogRow(ROW.correlation_id, ROW.generation_id, succeeded=True)
EMPTY = LogPass({}, complete=True, key_id="key", api_url=URL, windows=((NOW - 90 * DAY_S, inf),))
SHOWN = replace(EMPTY, rows={ROW.correlation_id: LISTED}, oldest=NOW - 9000, newest=NOW)


def gap(
    log: LogPass,
    *records: Record,
    entries: tuple[Submission, ...] | None = None,
    last: LastUse | None = None,
) -> HistoryGap | None:
    known = tuple(map(entry_of, records)) if entries is None else entries
    witnesses = witnesses_of(records, now=NOW, wall=NOW, wait_s=2700.0)
    return find_gap(log, known, witnesses, last=last or last_use(known), now=NOW)


def test_log_that_shows_what_is_known_has_no_gap() -> None:
    assert gap(SHOWN, ROW) is None


def test_batch_without_submissions_has_no_gap() -> None:
    assert gap(EMPTY) is None
    assert gap(EMPTY, record(State.PENDING, "row"), record(State.FAILED, "refused", key_id="key")) is None


def test_log_that_cannot_be_read_is_a_gap_that_only_reading_closes() -> None:
    found = gap(replace(SHOWN, complete=False, error="HTTP 503"), ROW)
    assert found == HistoryGap("cannot be read: HTTP 503", "run again when it can", may_last=False)


def test_log_that_refuses_the_key_is_a_gap_that_the_user_may_leave_open() -> None:
    found = gap(replace(SHOWN, complete=False, refused=True, error="HTTP 403"), ROW)
    assert found is not None
    assert found.may_last
    assert "another key" not in found.message
    assert "a key that may read it" in found.remedy
    assert "--resubmit-in-doubt" in found.remedy


OTHER: dict[str, Any] = {"correlation_id": "other", "generation_id": "g-other"}
ORIGINS = [{"key_id": "another"}, {"api_url": "https://elsewhere"}]


@pytest.mark.parametrize(
    ("facts", "message", "remedy"),
    [
        (ORIGINS[0], "1 submission(s) that were sent with another key", "run again with that key"),
        (
            ORIGINS[1],
            "1 submission(s) that were sent to another",
            "run again with --base-url https://elsewhere",
        ),
    ],
)
def test_what_another_log_shows_is_a_gap(facts: dict[str, Any], message: str, remedy: str) -> None:
    other = done(**OTHER, **facts)
    found = gap(SHOWN, ROW, other)
    assert found is not None
    assert found.may_last
    assert message in found.message
    assert remedy in found.remedy
    assert "--resubmit-in-doubt" in found.remedy
    # A submission that its row has left behind counts, and one that was refused does not.
    entry = entry_of(other)
    assert gap(SHOWN, ROW, entries=(entry,)) is not None
    assert gap(SHOWN, ROW, entries=(replace(entry, state=SubmissionState.RELEASED),)) is None


@pytest.mark.parametrize("facts", ORIGINS)
def test_log_that_shows_requests_of_another_key_or_address_is_theirs_too(facts: dict[str, Any]) -> None:
    """It is a management key's, or one account has two addresses. So it has to show all of them."""
    other = done(**OTHER, **facts)
    both = replace(SHOWN, rows={**SHOWN.rows, "other": replace(LISTED, client_request_id="other")})
    assert gap(both, ROW, other) is None
    hidden = done(**(OTHER | {"correlation_id": "hidden", "generation_id": "g-hidden"}), **facts)
    found = gap(both, ROW, other, hidden)
    assert found is not None
    assert "long finished" in found.message


def test_generation_that_the_log_shows_by_its_id_alone_is_no_gap() -> None:
    other = done(**OTHER, key_id="another")
    assert gap(replace(SHOWN, other_generations=frozenset({"g-other"})), ROW, other) is None
    assert gap(replace(EMPTY, other_generations=frozenset({ROW.generation_id})), ROW) is None


@pytest.mark.parametrize("facts", ORIGINS)
def test_what_was_given_up_before_the_copy_was_made_is_no_gap(facts: dict[str, Any]) -> None:
    """What is forgotten came later, and was sent with what was in use by then."""
    old = done(2 * DAY_S, **OTHER, **facts)
    assert gap(SHOWN, old, ROW, last=LastUse(("key", URL))) is None
    assert gap(SHOWN, old, ROW, last=LastUse()) is not None
    assert gap(SHOWN, old, ROW, last=LastUse(("another", URL))) is not None


def entry(key_id: str, at: float, name: str = "", **facts: Any) -> Submission:
    sent: dict[str, Any] = {"correlation_id": name or f"{key_id}{at}", "submitted_at": at, "key_id": key_id}
    return entry_of(done(**(sent | facts)))


@pytest.mark.parametrize(
    ("keys", "in_use"),
    [("", None), ("a", "a"), ("aa", "a"), ("ab", "b"), ("abb", "b"), ("aba", None), ("abab", None)],
)
def test_the_last_key_is_in_use_unless_several_are_used_in_turn(keys: str, in_use: str | None) -> None:
    entries = [entry(key, float(number)) for number, key in enumerate(keys)]
    expected = None if in_use is None else (in_use, URL)
    assert last_use(entries).origin == last_use(reversed(entries)).origin == expected


def test_what_was_refused_or_adopted_or_of_an_old_ledger_says_nothing_of_keys_in_use() -> None:
    others = [
        replace(entry("b", 2.0), state=SubmissionState.RELEASED),
        entry_of(done(correlation_id="", key_id="b", submitted_at=3.0)),
        entry("", 4.0),
    ]
    assert last_use([entry("a", 1.0), *others]) == LastUse(("a", URL), NOW - 9000)


def test_what_an_old_ledger_does_not_know_the_key_of_and_what_was_adopted_is_no_gap() -> None:
    assert gap(SHOWN, ROW, done(correlation_id="old", key_id="", api_url="")) is None
    assert gap(SHOWN, ROW, done(correlation_id="", generation_id="g-other", key_id="another")) is None


def test_log_that_does_not_show_what_is_long_finished_is_a_gap() -> None:
    found = gap(EMPTY, ROW)
    assert found is not None
    assert "1 generation(s) of ours that are long finished" in found.message
    assert found.may_last


@pytest.mark.parametrize(
    ("log", "row"),
    [
        (EMPTY, done(600.0)),
        (EMPTY, replace(ROW, state=State.FAILED, failure=Failure(GENERATION_UNKNOWN, "", retryable=True))),
        (EMPTY, done(correlation_id="")),
        (EMPTY, done(2 * DAY_S, vendor_sent_at=None)),
        (replace(EMPTY, anonymous=(AnonymousRow(ROW.generation_id, "m", NOW),)), ROW),
    ],
    ids=["just finished", "lost", "adopted", "not dated", "header dropped"],
)
def test_log_need_not_show_by_name_what_may_be_missing(log: LogPass, row: Record) -> None:
    assert gap(log, row) is None


def test_log_that_reaches_back_beyond_a_row_has_to_show_it() -> None:
    found = gap(replace(EMPTY, oldest=NOW - 3 * DAY_S), done(2 * DAY_S))
    assert found is not None
    assert "long finished" in found.message


OLD = done(3 * DAY_S, correlation_id="old", generation_id="g-old")
LAST = done(2 * DAY_S)


def test_log_has_to_reach_back_to_what_the_ledger_knew_last() -> None:
    """What came after that, and is kept no longer, would be bought again."""
    for log in (EMPTY, replace(EMPTY, oldest=NOW - DAY_S)):
        found = gap(log, OLD, LAST)
        assert found is not None
        assert "does not go back to the last submission" in found.message
        assert "--resubmit-in-doubt" in found.remedy
    assert gap(replace(SHOWN, oldest=NOW - 2 * DAY_S + 1), OLD, LAST) is None
    assert gap(replace(SHOWN, rows={}, other_generations=frozenset({LAST.generation_id})), OLD, LAST) is None


def test_what_is_recovered_or_submitted_since_does_not_stand_for_what_was_known() -> None:
    known = last_use([entry_of(OLD)])
    assert gap(SHOWN, OLD, ROW, last=known) is not None
    assert gap(replace(SHOWN, oldest=NOW - 3 * DAY_S), ROW, last=known) is None


def test_what_is_kept_no_longer_is_no_gap_where_something_later_is_shown() -> None:
    assert gap(SHOWN, OLD, ROW) is None
    assert gap(EMPTY, OLD, done(600.0)) is None
