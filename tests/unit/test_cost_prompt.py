"""What a run will cost, in words, and when somebody is asked."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import click
import pytest

from pipeline.cli.cost_prompt import confirm_cost
from pipeline.client.catalog import Catalog
from pipeline.model import State
from pipeline.runner.run_cost_estimate import CostEstimate, PriceTable, estimate_cost, load_prices
from tests.unit.samples import record

SOME = CostEstimate(rows=3, usd=3.6, unknown_rows=0, balance_usd=None)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (SOME, "3 to submit: $3.60"),
        (CostEstimate(2000, 2400, 0, 10000.5), "2000 to submit: $2,400.00; $10,000.50 on the account"),
        (CostEstimate(6, 2.4, 0, None, takes_of=2), "6 to submit (takes of 2 rows): $2.40"),
        (CostEstimate(3, 2.4, 1, None), "3 to submit: $2.40 and 1 of unknown price"),
        (CostEstimate(3, 0, 3, 7), "3 to submit: the price is unknown; $7.00 on the account"),
        (CostEstimate(1, 0.0, 0, 0.0), "1 to submit: $0.00; $0.00 on the account"),
    ],
)
def test_an_estimate_says_unknown_and_never_zero_for_it(made: CostEstimate, words: str) -> None:
    assert made.to_text() == words


def test_a_price_is_known_assumed_or_unknown() -> None:
    row, other = record(name="a"), record(name="b")
    prices = PriceTable({row.key: 1.2})
    assert (prices.price_usd(row), prices.price_usd(other)) == (1.2, None)
    assert PriceTable({row.key: 1.2}, 0.5).price_usd(other) == 0.5
    assert PriceTable({row.key: 0.0}, 0.5).price_usd(row) == 0.0


def test_only_what_may_still_be_submitted_is_estimated() -> None:
    rows = [
        record(State.PENDING, "a", 0),
        record(State.PENDING, "b", 1),
        record(State.PENDING, "gone", -1),
        record(State.DONE, "c", 2, usd_spent=1.0),
        record(State.FAILED, "d", 3),
        record(State.GENERATING, "e", 4, reserved_usd=2.0),
    ]
    made = estimate_cost(rows, PriceTable({rows[0].key: 1.5, rows[1].key: 0.5}), 9.0)
    assert (made.rows, made.usd, made.unknown_rows, made.balance_usd) == (2, 2.0, 0, 9.0)
    assert made.batch_usd == 5.0


def test_an_unknown_price_makes_the_batchs_unknown_but_not_the_rest() -> None:
    rows = [record(State.PENDING, "a", 0), record(State.PENDING, "b", 1)]
    made = estimate_cost(rows, PriceTable({rows[0].key: 1.5}), None)
    assert (made.rows, made.usd, made.unknown_rows, made.balance_usd) == (2, 1.5, 1, None)
    assert made.batch_usd is None


@pytest.mark.parametrize("state", [state for state in State if state is not State.PENDING])
def test_the_balance_is_not_shown_when_nothing_is_submitted(state: State) -> None:
    made = estimate_cost([record(state)], PriceTable(), 9.0)
    assert (made.rows, made.balance_usd) == (0, None)


@pytest.mark.parametrize("state", [State.READY, State.DONE, State.FAILED])
async def test_prices_are_not_asked_for_when_no_row_can_be_submitted(state: State) -> None:
    """A second run over a finished batch makes no request at all; a socket here would fail the test."""
    loaded: object = None
    catalogue = Catalog.__new__(Catalog)
    made = await load_prices([record(state)], loaded, catalogue, 0.7)  # type: ignore[arg-type]  # not read
    assert made == PriceTable(assumed=0.7)


@pytest.mark.parametrize(
    ("prices", "gone", "expected"),
    [
        ((1.2, 1.2), 0, PriceTable(assumed=1.2)),
        ((1.2, 1.2), 1, PriceTable({"a": 1.2, "b": 1.2}, 0.7)),
        ((1.2, 2.4), 0, PriceTable({"a": 1.2, "b": 2.4}, 0.7)),
        ((1.2, None), 0, PriceTable({"a": 1.2}, 0.7)),
        ((None, None), 0, PriceTable(assumed=0.7)),
    ],
)
async def test_a_price_that_all_rows_have_is_kept_once(
    monkeypatch: pytest.MonkeyPatch, prices: tuple[float | None, ...], gone: int, expected: PriceTable
) -> None:
    """Rows that left the manifest keep the price that is assumed for them."""

    async def price(*_: object) -> tuple[SimpleNamespace, tuple[str, ...]]:
        return SimpleNamespace(prices=prices), ()

    monkeypatch.setattr("pipeline.runner.run_cost_estimate.price_manifest", price)
    jobs = [SimpleNamespace(key="a"), SimpleNamespace(key="b")]
    loaded: Any = SimpleNamespace(manifest=SimpleNamespace(jobs=jobs))
    records = [record(State.PENDING)] * (len(jobs) + gone)
    assert await load_prices(records, loaded, Catalog.__new__(Catalog), 0.7) == expected


async def test_a_row_whose_key_an_earlier_version_made_has_its_price(monkeypatch: pytest.MonkeyPatch) -> None:
    async def price(*_: object) -> tuple[SimpleNamespace, tuple[str, ...]]:
        return SimpleNamespace(prices=(1.2, 2.4)), ()

    monkeypatch.setattr("pipeline.runner.run_cost_estimate.price_manifest", price)
    old = replace(record(State.PENDING, "a ", 0), key="a @f", fingerprint="f", body="")
    other = replace(record(State.PENDING, "b", 1), key="b@f", fingerprint="f", body="")
    loaded: Any = SimpleNamespace(manifest=SimpleNamespace(jobs=[SimpleNamespace(key="a@f"), other]))
    prices = await load_prices([old, other], loaded, Catalog.__new__(Catalog), None)
    assert [prices.price_usd(row) for row in (old, other)] == [1.2, 2.4]


class FakeTerminal:
    """A terminal, or none, and what somebody answers on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, there: bool, answer: str = "") -> None:
        self.prompts = 0
        self._answer = answer
        monkeypatch.setattr("sys.stdin.isatty", lambda: there)
        monkeypatch.setattr("sys.stderr.isatty", lambda: there)
        monkeypatch.setattr(click.termui, "visible_prompt_func", self.ask)

    def ask(self, _prompt: str = "") -> str:
        self.prompts += 1
        if self._answer == "Ctrl-C":
            os.kill(os.getpid(), signal.SIGINT)
        return self._answer


@pytest.mark.parametrize(("answer", "go"), [("y", True), ("", False), ("n", False), ("NO", False)])
def test_somebody_at_a_terminal_is_asked_once(monkeypatch: pytest.MonkeyPatch, answer: str, go: bool) -> None:
    screen = FakeTerminal(monkeypatch, there=True, answer=answer)
    before = signal.getsignal(signal.SIGINT)
    assert confirm_cost(SOME, assume_yes=False) is go
    assert screen.prompts == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_at_the_question_is_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeTerminal(monkeypatch, there=True, answer="Ctrl-C")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(click.Abort):
        confirm_cost(SOME, assume_yes=False)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("there", "yes", "rows"), [(False, False, 3), (True, True, 3), (False, True, 3), (True, False, 0)]
)
def test_nobody_is_asked_for_nothing(
    monkeypatch: pytest.MonkeyPatch, there: bool, yes: bool, rows: int
) -> None:
    screen = FakeTerminal(monkeypatch, there=there, answer="n")
    assert confirm_cost(CostEstimate(rows, 1.0, 0, None), assume_yes=yes)
    assert screen.prompts == 0
