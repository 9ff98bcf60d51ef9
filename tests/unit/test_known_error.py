"""Errors of ours that meet in one group are told as an error, not as a crash; a bug among them is a crash."""

from __future__ import annotations

from pipeline.errors import LedgerError, StoreError
from pipeline.run_context import known_error

LEDGER, STORE = LedgerError("the ledger is gone"), StoreError("the disk is full")


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("unhandled errors in a TaskGroup", errors)


def test_the_first_of_several_is_told() -> None:
    assert known_error(group(LEDGER)) is LEDGER
    assert known_error(group(STORE, LEDGER)) is STORE
    assert known_error(group(group(LEDGER), STORE)) is LEDGER


def test_a_bug_among_them_is_a_crash() -> None:
    assert known_error(group(KeyError("x"))) is None
    assert known_error(group(LEDGER, KeyError("x"))) is None
    assert known_error(group(STORE, group(LEDGER, KeyError("x")))) is None
