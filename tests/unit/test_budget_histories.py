"""Histories of a batch against a model of the vendor: its charges never exceed the budget of a run.

Runs, kills, lost answers, refusals, generations that fail, edits, removals, rows in doubt given up and sent
again, retries, adoptions, and prices that nobody knows until the user assumes one. Everything is decided by
the product's own rules; only the ledger (a dict and a `Spending`) and the vendor are models.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest

from pipeline.client.responses import GenerationStatus, Phase
from pipeline.ledger.spending import spending_change
from pipeline.ledger.totals import Spending, Totals
from pipeline.model import Failure, Job, Record, State, Transition
from pipeline.plan import RetrySelection, make_plan
from pipeline.poll.apply_status import mark_failed, mark_ready
from pipeline.submit.budget import Budget
from pipeline.submit.create import mark_generating

pytestmark = pytest.mark.no_cover  # long computations; shorter tests cover the same lines

HISTORIES = 1000
PRICE = 1.2
ASSUMED = 1.5


@dataclass
class Vendor:
    """What it renders and what it has charged, by generation."""

    charges: dict[str, float] = field(default_factory=dict)
    rendering: dict[str, float] = field(default_factory=dict)

    def accept(self, price: float) -> str:
        generation = f"g{len(self.charges) + len(self.rendering)}-{random.getrandbits(32)}"
        self.rendering[generation] = price
        return generation

    def committed(self) -> float:
        return sum(self.charges.values()) + sum(self.rendering.values())


@dataclass
class History:
    """One batch: what the ledger holds, what the manifest says, and what the vendor did."""

    chance: random.Random
    vendor: Vendor = field(default_factory=Vendor)
    records: dict[str, Record] = field(default_factory=dict)
    spending: Spending = field(default_factory=Spending)
    rows: list[tuple[str, int]] = field(default_factory=lambda: [(f"r{n}", 0) for n in range(6)])
    lost: dict[str, str | None] = field(default_factory=dict)
    sent: int = 0
    steps: list[Transition] = field(default_factory=list)

    def price(self, row_id: str) -> float | None:
        """Half the rows have a price; for the others the user assumes one, in some runs."""
        return PRICE if int(row_id[1:]) % 2 else None

    def commit(self, before: Record, after: Record) -> Record:
        """Make a step durable, and its entry with it."""
        self.records[after.key] = after
        self.steps.append(Transition(before, after))
        if (entry := spending_change(before, after)) is not None:
            self.spending.put(entry)
        return after

    def edit(self) -> None:
        """Change, remove or add rows of the manifest."""
        index = self.chance.randrange(len(self.rows))
        row_id, edits = self.rows[index]
        match self.chance.randrange(3):
            case 0:
                self.rows[index] = (row_id, edits + 1)
            case 1 if len(self.rows) > 2:
                del self.rows[index]
            case _:
                self.rows.append((f"r{max(int(name[1:]) for name, _ in self.rows) + 1}", 0))

    def plan(self) -> None:
        jobs = [Job(name, f"f{edits}", n, "m", {"model": "m"}) for n, (name, edits) in enumerate(self.rows)]
        plan = make_plan(
            jobs,
            self.records.values(),
            retry=RetrySelection(enabled=self.chance.random() < 0.5),
            resubmit_in_doubt=self.chance.random() < 0.4,
        )
        self.records.update((record.key, record) for record in plan.records)
        for before, after in (*plan.transitions, *plan.requeues):
            self.commit(before, after)

    def adopt(self, budget: Budget) -> None:
        """Take over a generation made elsewhere; it counts, so that there has to be room for it."""
        free = [
            r for r in self.records.values() if r.state in (State.PENDING, State.FAILED) and r.position >= 0
        ]
        if not free or (budget.remaining_usd or 0.0) < ASSUMED:
            return
        record = self.chance.choice(free)
        generation = self.vendor.accept(self.price(record.id) or ASSUMED)
        self.commit(
            record,
            record.evolve(
                State.GENERATING, correlation_id="", generation_id=generation, failure=None,
                reserved_usd=None, completed_at=None, earlier_usd=record.usd_spent or 0.0,
            ),
        )  # fmt: skip

    def run(self, limit: float) -> None:
        assumed = ASSUMED if self.chance.random() < 0.7 else None

        def price_of(key: str) -> float | None:
            return self.price(key.partition("@")[0]) or assumed

        if self.chance.random() < 0.3:
            self.adopt(Budget(limit, self.spending, lambda key: price_of(key) or ASSUMED))
        budget = Budget(limit, self.spending, price_of)
        for _ in range(self.chance.randrange(40)):
            if self.chance.random() < 0.03:
                return
            record = self.chance.choice(list(self.records.values()))
            if record.state is State.PENDING and record.position >= 0:
                price = price_of(record.key)
                affordable = price is not None and budget.reserve(record.key, price)
                if affordable and not self.submit(record, price or 0.0, budget):
                    return
            elif record.state is State.GENERATING:
                self.poll(record, budget)
            elif record.state is State.IN_DOUBT:
                self.reconcile(record, budget)

    def submit(self, record: Record, price: float, budget: Budget) -> bool:
        """Submit a row; False when the run is killed before the answer is written down."""
        self.sent += 1
        sent = self.commit(
            record,
            record.evolve(
                State.SUBMITTING, submission_no=record.submission_no + 1, correlation_id=f"vb.l.{self.sent}",
                submitted_at=float(self.sent), reserved_usd=price, earlier_usd=record.usd_spent or 0.0,
                completed_at=None, failure=None,
            ),
        )  # fmt: skip
        outcome = self.chance.choice(("accepted", "accepted", "refused", "throttled", "lost", "killed"))
        accepted = outcome == "accepted" or (outcome in ("lost", "killed") and self.chance.random() < 0.5)
        generation = self.vendor.accept(self.chance.choice((price, price * 0.5))) if accepted else None
        if outcome in ("lost", "killed"):
            self.lost[sent.correlation_id] = generation
        match outcome:
            case "accepted":
                after = mark_generating(sent, generation or "", float(self.sent))
            case "refused":
                after = sent.evolve(State.FAILED, failure=Failure("refused", "no"), reserved_usd=None)
            case "throttled":
                after = sent.evolve(State.PENDING, reserved_usd=None)
            case "lost":
                after = sent.evolve(State.IN_DOUBT, failure=Failure("in_doubt", "no answer"))
            case _:
                return False
        budget.apply(record, self.commit(sent, after))
        return True

    def poll(self, record: Record, budget: Budget) -> None:
        generation = record.generation_id
        cost = self.vendor.rendering.pop(generation, None)
        if cost is None:
            cost = self.vendor.charges[generation]
        elif self.chance.random() < 0.3:
            failure = Failure("generation_error", "no", retryable=True)
            status = GenerationStatus(Phase.FAILED, "error", generation, failure=failure)
            failed = self.commit(record, mark_failed(record, status, 9.0))
            budget.apply(record, failed)
            if self.chance.random() < 0.5:
                budget.apply(failed, self.commit(failed, failed.evolve(State.PENDING, failure=None)))
            return
        self.vendor.charges[generation] = cost
        told = self.chance.choice((cost, cost, None))
        status = GenerationStatus(
            Phase.COMPLETED, "completed", generation, video_url="https://cdn/v.mp4", usd_spent=told
        )
        if self.chance.random() < 0.2:
            status = replace(status, phase=Phase.FAILED, failure=Failure("no_video", "no"))
            after = mark_failed(record, status, 9.0)
        else:
            after = mark_ready(record, status, 9.0)
        budget.apply(record, self.commit(record, after))

    def reconcile(self, record: Record, budget: Budget) -> None:
        """The log settles some: found, or proven absent. Others stay in doubt."""
        if self.chance.random() < 0.5:
            return
        generation = self.lost[record.correlation_id]
        after = (
            record.evolve(State.PENDING, failure=None, reserved_usd=None)
            if generation is None
            else mark_generating(record, generation, 7.0)
        )
        budget.apply(record, self.commit(record, after))


@pytest.mark.parametrize("block", range(10))
def test_the_vendor_never_charges_more_than_the_budget(block: int) -> None:
    for seed in range(block * HISTORIES // 10, (block + 1) * HISTORIES // 10):
        history = History(random.Random(seed))
        limit = history.chance.choice((2.4, 3.6, 6.0, 9.0))
        spent = Totals()
        for _ in range(history.chance.randrange(2, 7)):
            history.plan()
            history.run(limit)
            assert history.vendor.committed() <= limit + 1e-9, f"seed {seed}"
            confirmed = history.spending.totals().spent_usd
            assert confirmed >= spent.spent_usd, f"seed {seed}: money was forgotten"
            spent = history.spending.totals()
            history.edit()
