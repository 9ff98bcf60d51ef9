"""One row's 403 is the row's; several rows refused one after the other speak for the account."""

from __future__ import annotations

from pipeline.submit.refused_rows import MIN_ROWS, RefusedRows


def refuse(rows: RefusedRows, key: str) -> None:
    rows.on_refused(key, rows.on_sent())


def accept(rows: RefusedRows) -> None:
    rows.on_accepted(rows.on_sent())


def test_several_rows_refused_in_a_row_speak_for_the_account() -> None:
    rows = RefusedRows()
    for number in range(MIN_ROWS):
        assert not rows.is_accounts_own()
        refuse(rows, f"row-{number}")
    assert rows.is_accounts_own()
    assert rows.is_unexplained
    accept(rows)
    assert not rows.is_accounts_own()
    assert not rows.is_unexplained


def test_an_acceptance_that_is_read_late_says_nothing_of_what_was_sent_after_it() -> None:
    rows = RefusedRows()
    sent = [rows.on_sent() for _ in range(MIN_ROWS + 1)]
    for place in sent[1:]:
        rows.on_refused(f"row-{place}", place)
    rows.on_accepted(sent[0])
    assert rows.is_accounts_own()


def test_a_refusal_that_is_read_late_says_nothing_of_what_was_sent_after_it() -> None:
    rows = RefusedRows()
    sent = [rows.on_sent() for _ in range(MIN_ROWS + 1)]
    rows.on_accepted(sent[-1])
    for place in sent[:-1]:
        rows.on_refused(f"row-{place}", place)
    assert not rows.is_accounts_own()
    assert not rows.is_unexplained


def test_one_row_refused_again_and_again_speaks_for_itself_alone() -> None:
    rows = RefusedRows()
    for _ in range(10):
        refuse(rows, "bad")
    assert not rows.is_accounts_own()
    assert not rows.is_rows_own("bad")
    accept(rows)
    refuse(rows, "bad")
    assert rows.is_rows_own("bad")
    assert rows.is_unexplained
    rows.on_given_up("bad")
    assert not rows.is_unexplained


def test_an_acceptance_sent_beside_a_refusal_does_not_make_it_the_rows_own() -> None:
    rows = RefusedRows()
    refused, accepted = rows.on_sent(), rows.on_sent()
    rows.on_refused("good", refused)
    rows.on_accepted(accepted)
    refuse(rows, "good")
    assert not rows.is_rows_own("good")
