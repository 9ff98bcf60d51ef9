"""What the user has asked for this once: rows tried again, takes made again, a rewritten manifest paid for.

None of it is durable before a run begins to submit. A run that ends before that (at the question, by a check,
by Ctrl-C) leaves the ledger as if nobody had asked: the next command has to ask again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.errors import Conflict
from pipeline.model import State, Transition
from pipeline.reconcile.uncertain_history import open_question, settle_question

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.batch.retakes import Retakes
    from pipeline.batch_plan import BatchPlan
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.submit.submission_journal import SubmissionJournal

VANISHED_NAME: Final = "vanished_before"
"""The ledger's fact that counts the rows that vanished by rewriting, while no run has begun since."""


@dataclass(frozen=True, slots=True)
class OneTimeRequests:
    """Rows to requeue, extra takes with new ones among them, and whether a rewritten manifest is paid for.

    `journal` is to be taken over, by the consent of a user whose ledger may have forgotten submissions.
    """

    requeues: tuple[tuple[Record, Record], ...]
    retakes: Retakes | None = None
    pays_rewritten: bool = False
    journal: SubmissionJournal | None = None

    async def commit(self, ledger: Ledger) -> Mapping[str, Record]:
        """Make them durable, for a run that begins now; return the rows that they changed, by their keys."""
        # Takes first: after a kill the same command finds those that may be bought, and buys no others.
        if self.retakes is not None:
            await self.retakes.save(ledger)
        if self.pays_rewritten:
            await ledger.meta_set(VANISHED_NAME, "0")
        if self.journal is not None and await open_question(ledger) is not None:
            await _take_risk(ledger, self.journal)
        if not self.requeues:
            return {}
        outcomes = await ledger.commit_many([Transition(before, after) for before, after in self.requeues])
        return {row.key: row for row in outcomes if not isinstance(row, Conflict)}


async def _take_risk(ledger: Ledger, journal: SubmissionJournal) -> None:
    """Let open rows be submitted that may be paid; where none is open, nobody was asked."""
    records = await ledger.load()
    if any(one.position >= 0 and one.state not in (State.READY, State.DONE) for one in records):
        await settle_question(ledger)
        await journal.take_over(ledger, records)


async def vanished_before(ledger: Ledger) -> int:
    """Return how many rows vanished in plans that seemed rewritten and of which no run has begun."""
    return int(await ledger.meta_get(VANISHED_NAME) or 0)


async def note_vanished(ledger: Ledger, plan: BatchPlan) -> None:
    """Note what a plan is about to take out of the manifest, so that the next one asks about it, too."""
    vanished = plan.vanished if plan.seems_rewritten else 0
    if vanished != plan.vanished_before:
        await ledger.meta_set(VANISHED_NAME, str(vanished))
