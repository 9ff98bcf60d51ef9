"""The premises of a proof of absence: each holds here, each is taken away once, and each is then missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.client import LogRow
from pipeline.reconcile.absence_proof import is_first_absence, prove_absence
from pipeline.reconcile.charges import Charge, Charges
from pipeline.reconcile.evidence import (
    DATE_HEADER_ERROR_S,
    Evidence,
    Missing,
    Premise,
    SubmissionInDoubt,
    Witness,
    clock_error_s,
)
from pipeline.reconcile.request_log import AnonymousRow, LogPass
from tests.unit.vendor_history import iso

NOW = 1_800_000_000.0
WAIT_S = 2700.0
HOUR_S = 3600.0
DAY_S = 86_400.0
SENT_AT = NOW - 3000.0
URL = "https://api.example.com"

SUBMISSION = SubmissionInDoubt("c-row", "key", URL, "m", SENT_AT, SENT_AT + 7, NOW - 1000, order=1)
WITNESS = Witness("c-other", "g-other", "key", URL, SENT_AT + 100, due=True, charged=True, order=2)
OTHER_ROW = LogRow("c-other", "g-other", succeeded=True, created=iso(SENT_AT + 100))
LOG = LogPass(
    {"c-other": OTHER_ROW},
    complete=True,
    key_id="key",
    api_url=URL,
    windows=((NOW - DAY_S, float("inf")),),
    oldest=SENT_AT - 500,
    newest=NOW - 10,
    times={"c-other": SENT_AT + 100},
)
CHARGES = Charges((Charge("g-other", SENT_AT + 400), Charge("g-early", SENT_AT - 900)))
EVIDENCE = Evidence(LOG, WAIT_S, 3000.0, 1000.0, NOW, (WITNESS,), None, frozenset({"g-other", "g-early"}))


def with_log(**facts: Any) -> Evidence:
    return replace(EVIDENCE, log=replace(LOG, **facts))


def premises(submission: SubmissionInDoubt, evidence: Evidence) -> set[Premise]:
    return {missing.premise for missing in prove_absence(submission, evidence)}


def only_missing(submission: SubmissionInDoubt, evidence: Evidence) -> Missing:
    [missing] = prove_absence(submission, evidence)
    return missing


def test_proof_that_is_complete() -> None:
    assert prove_absence(SUBMISSION, EVIDENCE) == ()


BROKEN: list[tuple[str, SubmissionInDoubt, Evidence, Premise]] = [
    ("no name", replace(SUBMISSION, correlation_id=""), EVIDENCE, Premise.NAME),
    ("another key", replace(SUBMISSION, key_id="rotated"), EVIDENCE, Premise.KEY),
    ("unknown key", replace(SUBMISSION, key_id=""), EVIDENCE, Premise.KEY),
    ("another address", replace(SUBMISSION, api_url="https://other"), EVIDENCE, Premise.KEY),
    ("unknown address", replace(SUBMISSION, api_url=""), EVIDENCE, Premise.KEY),
    ("half a log", SUBMISSION, with_log(complete=False, error="two pages do not overlap"), Premise.PAGES),
    ("a window that begins late", SUBMISSION, with_log(windows=((SENT_AT - 60, NOW),)), Premise.WINDOW),
    ("a window that ends early", SUBMISSION, with_log(windows=((0.0, SENT_AT + 60),)), Premise.WINDOW),
    ("windows with a gap", SUBMISSION, with_log(windows=((0.0, SENT_AT), (NOW, 2 * NOW))), Premise.WINDOW),
    ("no window", SUBMISSION, with_log(windows=()), Premise.WINDOW),
    (
        "a request without an id at that moment",
        SUBMISSION,
        with_log(anonymous=(AnonymousRow("g-nobody", "m", SENT_AT + 5),)),
        Premise.ANONYMOUS,
    ),
    (
        "a witness that is hidden",
        SUBMISSION,
        replace(EVIDENCE, witnesses=(WITNESS, replace(WITNESS, correlation_id="c-hidden"))),
        Premise.WITNESSES,
    ),
    ("a log ahead of the vendor's clock", SUBMISSION, with_log(newest=NOW + HOUR_S), Premise.CLOCK),
    ("a log that may stand still", SUBMISSION, with_log(newest=SENT_AT + 200), Premise.LOG_ADVANCED),
    ("no witness after it", SUBMISSION, replace(EVIDENCE, witnesses=()), Premise.LOG_ADVANCED),
    ("one pass", SUBMISSION, replace(EVIDENCE, apart_s=None), Premise.PASSES),
    ("two passes at once", SUBMISSION, replace(EVIDENCE, apart_s=WAIT_S * 0.09), Premise.PASSES),
    ("too soon", SUBMISSION, replace(EVIDENCE, elapsed_s=WAIT_S - 1), Premise.TIME),
    ("time that nothing measured", SUBMISSION, replace(EVIDENCE, elapsed_s=None), Premise.TIME),
]


@pytest.mark.parametrize(
    ("submission", "evidence", "premise"), [case[1:] for case in BROKEN], ids=[c[0] for c in BROKEN]
)
def test_premise_that_is_taken_away_is_missing_and_says_what_supplies_it(
    submission: SubmissionInDoubt, evidence: Evidence, premise: Premise
) -> None:
    missing = only_missing(submission, evidence)
    assert missing.premise is premise
    assert missing.message
    assert missing.remedy


def test_row_long_without_an_id_or_of_another_model_is_not_this_submission() -> None:
    rows = (
        AnonymousRow("g-far", "m", SENT_AT - 500),
        AnonymousRow("g-model", "another", SENT_AT),
        AnonymousRow("g-other", "m", SENT_AT),
    )
    assert prove_absence(SUBMISSION, with_log(anonymous=rows)) == ()


def test_windows_that_touch_cover_together() -> None:
    halves = with_log(windows=((SENT_AT, 2 * NOW), (SENT_AT - DAY_S, SENT_AT)))
    assert prove_absence(SUBMISSION, halves) == ()


def test_witness_of_another_key_neither_helps_nor_hides() -> None:
    stranger = replace(WITNESS, key_id="rotated")
    assert premises(SUBMISSION, replace(EVIDENCE, witnesses=(stranger,))) == {Premise.LOG_ADVANCED}
    hidden = replace(with_log(rows={}), witnesses=(stranger,), charges=CHARGES)
    assert prove_absence(SUBMISSION, hidden) == ()


def test_witness_outside_of_the_window_is_not_hidden() -> None:
    early = replace(WITNESS, correlation_id="c-early", sent_at=NOW - 3 * DAY_S)
    assert prove_absence(SUBMISSION, replace(EVIDENCE, witnesses=(WITNESS, early))) == ()


# Where the log shows too little: the account's charges.

STILL = with_log(newest=SENT_AT + 200)


def test_charges_that_everything_known_explains_complete_the_proof() -> None:
    assert prove_absence(SUBMISSION, replace(STILL, charges=CHARGES)) == ()
    alone = replace(EVIDENCE, log=replace(LOG, rows={}, oldest=None, newest=None), witnesses=())
    assert prove_absence(SUBMISSION, replace(alone, charges=Charges())) == ()


@pytest.mark.parametrize(
    ("charges", "waits"),
    [
        (None, True),
        (Charges(error="HTTP 500", may_pass=True), True),
        (Charges(error="HTTP 403"), False),
        (Charges((*CHARGES.charges, Charge("g-mystery", SENT_AT + 900))), False),
        (Charges((*CHARGES.charges, Charge("g-undated", None))), False),
        (Charges((Charge("g-early", SENT_AT - 900),)), True),
    ],
)
def test_charges_that_do_not_agree_leave_it_open(charges: Charges | None, waits: bool) -> None:
    missing = only_missing(SUBMISSION, replace(STILL, charges=charges))
    assert missing.premise is Premise.LOG_ADVANCED
    assert (missing.wait_s is not None) is waits


def test_charge_of_another_program_with_the_same_key_is_explained_by_the_log() -> None:
    evidence = with_log(newest=SENT_AT + 200, other_generations=frozenset({"g-mystery"}))
    charges = Charges((*CHARGES.charges, Charge("g-mystery", SENT_AT + 900)))
    assert prove_absence(SUBMISSION, replace(evidence, charges=charges)) == ()


def test_charge_of_a_submission_that_was_given_up_is_explained_by_the_log() -> None:
    """No row has it any more after --resubmit-in-doubt; the log still shows it under an id of ours."""
    given_up = {"c-given-up": LogRow("c-given-up", "g-mystery", succeeded=True, created=iso(SENT_AT - 100))}
    evidence = with_log(newest=SENT_AT + 200, rows={**LOG.rows, **given_up})
    charges = Charges((*CHARGES.charges, Charge("g-mystery", SENT_AT + 900)))
    assert prove_absence(SUBMISSION, replace(evidence, charges=charges)) == ()
    own = {SUBMISSION.correlation_id: LogRow(SUBMISSION.correlation_id, "g-mystery", succeeded=None)}
    evidence = with_log(newest=SENT_AT + 200, rows={**LOG.rows, **own})
    assert prove_absence(SUBMISSION, replace(evidence, charges=charges)) != ()


def test_api_without_transactions_leaves_it_to_a_witness_after_the_submission() -> None:
    charges = Charges(error="HTTP 404", not_offered=True)
    assert prove_absence(SUBMISSION, replace(STILL, charges=charges)) == ()
    before = replace(WITNESS, sent_at=SENT_AT - 100, order=0)
    times = {"c-other": SENT_AT - 100}
    evidence = replace(STILL, charges=charges, witnesses=(before,), log=replace(STILL.log, times=times))
    assert only_missing(SUBMISSION, evidence).premise is Premise.LOG_ADVANCED


def test_witness_of_another_process_counts_once_it_left_later_than_both_may_err() -> None:
    """`Date` has whole seconds: two processes may date the later of two submissions before the other."""
    charges, early_s = Charges(error="HTTP 404", not_offered=True), DATE_HEADER_ERROR_S - 0.1
    for later_s, is_proven in ((0.0, False), (early_s, False), (DATE_HEADER_ERROR_S, True)):
        other = replace(WITNESS, sent_at=SENT_AT + later_s, order=None)
        evidence = replace(STILL, charges=charges, witnesses=(other,))
        assert (prove_absence(SUBMISSION, evidence) == ()) is is_proven
    nonce = "0123456789abcdef"
    for name, is_proven in (
        (f"vb.x.{nonce}", True),
        (f"vb.x.{nonce[::-1]}", False),
        ("vb.x.01234567", False),
    ):
        sent = replace(SUBMISSION, correlation_id=f"vb.y.{nonce[:8]}fedcba98", order=None)
        of_process = replace(WITNESS, sent_at=SENT_AT, order=None, correlation_id=name)
        log = replace(STILL.log, rows={name: OTHER_ROW}, times={name: SENT_AT})
        evidence = replace(STILL, charges=charges, witnesses=(of_process,), log=log)
        assert (prove_absence(sent, evidence) == ()) is is_proven
    beside = replace(WITNESS, sent_at=SENT_AT, order=2)
    assert prove_absence(SUBMISSION, replace(STILL, charges=charges, witnesses=(beside,))) == ()


def test_order_of_one_process_stands_in_for_a_vendor_without_a_clock() -> None:
    undated = replace(SUBMISSION, sent_at=None, absent_since=None)
    witness = replace(WITNESS, sent_at=None)
    log = replace(LOG, windows=((NOW - 7 * DAY_S, float("inf")),))
    evidence = Evidence(
        log, WAIT_S, 3000.0, 1000.0, None, (witness,), Charges(error="HTTP 404", not_offered=True)
    )
    assert prove_absence(undated, evidence) == ()
    assert premises(replace(undated, order=3), evidence) == {Premise.LOG_ADVANCED}


# Submissions that retention may have cut off.

OLD_AT = NOW - 40 * DAY_S
OLD = replace(SUBMISSION, sent_at=OLD_AT, local_sent_at=OLD_AT, absent_since=OLD_AT + 9000)
OLD_WITNESS = replace(WITNESS, sent_at=OLD_AT + 100)
OLD_LOG = replace(
    LOG,
    times={"c-other": OLD_AT + 100},
    windows=((OLD_AT - DAY_S, OLD_AT + DAY_S),),
    oldest=OLD_AT - 50,
)
OLD_EVIDENCE = replace(EVIDENCE, log=OLD_LOG, witnesses=(OLD_WITNESS,))


def test_old_submission_needs_something_from_before_it() -> None:
    assert prove_absence(OLD, OLD_EVIDENCE) == ()
    cut = replace(OLD_EVIDENCE, log=replace(OLD_LOG, oldest=OLD_AT + 100))
    assert only_missing(OLD, cut).premise is Premise.LOG_ADVANCED
    late = Charges((Charge("g-other", OLD_AT + 400), Charge("g-late", NOW - 5)))
    known = frozenset({"g-other", "g-late", "g-early"})
    assert (
        only_missing(OLD, replace(cut, charges=late, known_generations=known)).premise is Premise.LOG_ADVANCED
    )
    whole = Charges((*late.charges, Charge("g-early", OLD_AT - 5)))
    assert prove_absence(OLD, replace(cut, charges=whole, known_generations=known)) == ()


def test_window_of_92_days_does_not_cover_what_is_older() -> None:
    ancient = replace(OLD, sent_at=NOW - 100 * DAY_S, local_sent_at=None)
    cut_off = replace(OLD_EVIDENCE, log=replace(OLD_LOG, windows=((NOW - 92 * DAY_S, NOW),)))
    assert Premise.WINDOW in premises(ancient, cut_off)


def test_submission_that_only_the_local_clock_dates_needs_a_wide_window() -> None:
    undated = replace(SUBMISSION, sent_at=None)
    charges = replace(EVIDENCE, charges=CHARGES)
    assert Premise.WINDOW in premises(undated, charges)
    wide = replace(charges, log=replace(LOG, windows=((NOW - 7 * DAY_S, float("inf")),)))
    assert Premise.WINDOW not in premises(undated, wide)


# Times that are apart: by as much as a witness shows, the submission may have left later, or earlier.

LATE_S = 3090.0
LATE = Witness("c-late", "g-late", "key", URL, SENT_AT - 50, due=True, charged=True, order=0)
LATER = replace(WITNESS, sent_at=SENT_AT + LATE_S + DATE_HEADER_ERROR_S, order=2)
ERRING_LOG = replace(
    LOG,
    rows={name: replace(OTHER_ROW, client_request_id=name) for name in ("c-late", "c-other")},
    times={"c-late": SENT_AT - 50 + LATE_S, "c-other": SENT_AT + LATE_S + 1},
    newest=SENT_AT + WAIT_S + LATE_S + 2,
)
ERRING = replace(
    EVIDENCE, log=ERRING_LOG, witnesses=(LATE, LATER), now=NOW + 2 * WAIT_S, clock_error_s=LATE_S
)


def erring(**facts: Any) -> Evidence:
    return replace(ERRING, log=replace(ERRING_LOG, **facts))


@pytest.mark.parametrize(
    ("times", "error_s"),
    [
        ({}, 0.0),
        ({"c-other": SENT_AT + 100 + 300.0}, 0.0),
        ({"c-other": SENT_AT + 100 + LATE_S}, LATE_S),
        ({"c-other": SENT_AT + 100 - LATE_S}, LATE_S),
        ({"c-other": SENT_AT + 100, "c-late": SENT_AT - 50 + LATE_S}, LATE_S),
    ],
)
def test_times_are_wrong_by_what_the_worst_witness_shows(times: dict[str, float], error_s: float) -> None:
    undated = replace(WITNESS, correlation_id="c-undated", sent_at=None)
    stranger = replace(WITNESS, key_id="rotated", sent_at=0.0)
    log = replace(LOG, times={**times, "c-undated": 0.0})
    assert clock_error_s(log, (undated, stranger, WITNESS, LATE)) == error_s


def test_witness_that_left_late_leaves_a_proof_possible() -> None:
    """It once said for ever that the log's clock was another one."""
    assert clock_error_s(ERRING_LOG, ERRING.witnesses) == LATE_S
    assert prove_absence(SUBMISSION, ERRING) == ()


@pytest.mark.parametrize(
    ("evidence", "premise"),
    [
        (erring(windows=((SENT_AT - HOUR_S - LATE_S + 1, float("inf")),)), Premise.WINDOW),
        (erring(windows=((0.0, SENT_AT + WAIT_S + HOUR_S + LATE_S - 1),)), Premise.WINDOW),
        (erring(anonymous=(AnonymousRow("g-nobody", "m", SENT_AT + LATE_S + 5),)), Premise.ANONYMOUS),
        (erring(anonymous=(AnonymousRow("g-nobody", "m", SENT_AT - LATE_S - 5),)), Premise.ANONYMOUS),
        (erring(newest=SENT_AT + WAIT_S + LATE_S + 1), Premise.LOG_ADVANCED),
        # A create that was called later, also by the same process, may have left earlier.
        (replace(ERRING, witnesses=(LATE, replace(LATER, sent_at=SENT_AT + 100))), Premise.LOG_ADVANCED),
    ],
)
def test_submission_may_have_left_as_late_as_a_witness_did(evidence: Evidence, premise: Premise) -> None:
    assert only_missing(SUBMISSION, evidence).premise is premise


def test_undated_submission_has_its_window_widened_as_well() -> None:
    undated = replace(SUBMISSION, sent_at=None)
    start = SENT_AT + 7 - 2 * DAY_S - LATE_S
    assert Premise.WINDOW not in premises(undated, erring(windows=((start, float("inf")),)))
    assert Premise.WINDOW in premises(undated, erring(windows=((start + 1, float("inf")),)))


def test_charges_have_to_cover_the_times_that_may_be_wrong() -> None:
    known = frozenset({"g-other", "g-late", "g-early"})
    still = replace(erring(newest=SENT_AT), known_generations=known)
    ours = (Charge("g-other", SENT_AT + LATE_S + 400), Charge("g-late", SENT_AT + LATE_S + 90))
    assert prove_absence(SUBMISSION, replace(still, charges=Charges(ours))) == ()
    for at in (SENT_AT + WAIT_S + HOUR_S + LATE_S - 1, SENT_AT - LATE_S - 299):
        charges = Charges((*ours, Charge("g-mystery", at)))
        assert only_missing(SUBMISSION, replace(still, charges=charges)).premise is Premise.LOG_ADVANCED


def test_old_submission_needs_something_from_before_it_may_have_left() -> None:
    at = OLD_AT + LATE_S + DATE_HEADER_ERROR_S
    log = replace(OLD_LOG, times={"c-other": at}, oldest=OLD_AT - LATE_S)
    old = replace(OLD_EVIDENCE, log=log, witnesses=(replace(OLD_WITNESS, sent_at=at),), clock_error_s=LATE_S)
    assert prove_absence(OLD, old) == ()
    cut = replace(old, log=replace(log, oldest=OLD_AT - LATE_S + 1))
    assert only_missing(OLD, cut).premise is Premise.LOG_ADVANCED
    charges = Charges((Charge("g-other", OLD_AT + 400), Charge("g-early", OLD_AT - LATE_S + 1)))
    beyond = OLD_AT + WAIT_S + DATE_HEADER_ERROR_S + LATE_S
    late = Charge("g-late", beyond)
    known = frozenset({"g-other", "g-early", "g-late"})
    cut = replace(cut, known_generations=known, charges=replace(charges, charges=(late, *charges.charges)))
    assert only_missing(OLD, cut).premise is Premise.LOG_ADVANCED
    for charge, proven in ((replace(late, at=beyond - 1), False), (late, True)):
        whole = Charges((charge, Charge("g-other", OLD_AT + 400), Charge("g-early", OLD_AT - LATE_S)))
        assert (prove_absence(OLD, replace(cut, charges=whole)) == ()) is proven


# What counts as the first of two passes.


@pytest.mark.parametrize(
    ("evidence", "starts"),
    [
        (EVIDENCE, True),
        (replace(EVIDENCE, elapsed_s=WAIT_S * 0.9, apart_s=None, witnesses=()), True),
        # Before it had to appear, every log lacks it: the second pass alone would decide.
        (replace(EVIDENCE, elapsed_s=WAIT_S * 0.89), False),
        (replace(EVIDENCE, elapsed_s=None), False),
        (with_log(complete=False), False),
        (with_log(key_id="rotated"), False),
        (with_log(rows={}), False),
        (with_log(windows=()), False),
        (with_log(rows={**LOG.rows, "c-row": LogRow("c-row", "g")}), False),
    ],
)
def test_first_pass_counts_when_the_log_could_have_shown_the_row(evidence: Evidence, starts: bool) -> None:
    assert is_first_absence(SUBMISSION, evidence) is starts


def test_an_undated_submission_is_dated_by_the_first_pass_that_does_not_show_it() -> None:
    undated = replace(SUBMISSION, sent_at=None, absent_since=None)
    wide = with_log(windows=((NOW - 7 * DAY_S, float("inf")),))
    assert is_first_absence(undated, replace(wide, elapsed_s=None))
