"""One row's 403 is the row's; several rows refused in a row speak for the account."""

from __future__ import annotations

from pipeline.submit.refused_rows import MIN_ROWS, RefusedRows


def test_several_rows_refused_in_a_row_speak_for_the_account() -> None:
    rows = RefusedRows()
    for number in range(MIN_ROWS):
        assert not rows.is_accounts_own()
        rows.on_refused(f"row-{number}")
    assert rows.is_accounts_own()
    rows.on_accepted()
    assert not rows.is_accounts_own()


def test_one_row_refused_again_and_again_speaks_for_itself_alone() -> None:
    rows = RefusedRows()
    for _ in range(10):
        rows.on_refused("bad")
    assert not rows.is_accounts_own()
    assert not rows.is_rows_own("bad")
    rows.on_accepted()
    rows.on_refused("bad")
    assert rows.is_rows_own("bad")
