"""Which row a generation belongs to: two rows never share one, whichever processes have answers about it.

What a process knows of other rows is as old as its start. So the ledger decides, in the transaction of the
step that names a generation. It must not know connections or records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.ledger import rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.ledger.backend import Cursor
    from pipeline.ledger.compiled_statements import Statements


def claim_generations(
    cursor: Cursor, sql: Statements, batch: str, named: Iterable[tuple[str, str, int]]
) -> bool:
    """Claim generations for rows, by (generation id or "", key, submission); return whether all are theirs.

    A claim outlives its row's interest: a generation that was given up is no other row's either, and none of
    a later submission of the same row. Submission 0 stands for any.
    """
    claims = [rows.sanitized((batch, *claim)) for claim in named if claim[0]]
    if claims:
        cursor.executemany(sql.generation_claim, claims)
    return not claims or cursor.rowcount == len(claims)
