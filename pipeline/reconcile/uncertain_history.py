"""Whether a ledger may have forgotten submissions: it says so itself until the log, or its user, settles it.

What raises the question, as the marker of another machine, may be gone once a run has met it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from pipeline.reconcile.history_gap import LastUse, last_use

if TYPE_CHECKING:
    from pipeline.ledger import Ledger

UNCERTAIN_META: Final = "history_uncertain"


class OpenQuestion(NamedTuple):
    """What the ledger had used last when the question came up; `alone`: nothing else raises it again."""

    last: LastUse
    alone: bool = False


async def open_question(ledger: Ledger) -> OpenQuestion | None:
    """Return the question if the ledger has it."""
    noted = await ledger.meta_get(UNCERTAIN_META)
    if not noted:
        return None
    alone, origin, sent_at = json.loads(noted)
    return OpenQuestion(LastUse(None if origin is None else (origin[0], origin[1]), sent_at), alone)


async def note_question(ledger: Ledger, question: OpenQuestion) -> None:
    """Let the ledger have it."""
    last, alone = question
    await ledger.meta_set(UNCERTAIN_META, json.dumps([alone, last.origin, last.sent_at]))


async def note_uncertain(ledger: Ledger) -> None:
    """Let the ledger have the question though nothing else raises it again; one that it has stays."""
    question = await open_question(ledger) or OpenQuestion(last_use(await ledger.submissions()))
    if not question.alone:
        await note_question(ledger, question._replace(alone=True))


async def settle_question(ledger: Ledger) -> None:
    """Forget it: the log has shown all, the user has taken the risk, or what raised it was wrong."""
    await ledger.meta_set(UNCERTAIN_META, "")
