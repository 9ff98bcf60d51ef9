"""How the batch's last run ended, kept in the ledger for the start of the next one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from pipeline import clocks
from pipeline.results.csv_rows import iso

if TYPE_CHECKING:
    from pipeline.ledger import Ledger

LAST_END_NAME: Final = "last_end"
RUNNING: Final = "running"

_NOTES: Final = {
    RUNNING: "the last run (since {at}) did not end by itself (killed?); what it had submitted is taken up",
    "SIGHUP": "the last run's terminal was closed at {at} (SIGHUP); what it had submitted is taken up. "
    "tmux, nohup or systemd-run keep a run going",
    "SIGTERM": "the last run was ended by SIGTERM at {at}; what it had submitted is taken up",
}


async def save_end(ledger: Ledger, how: str) -> None:
    """Write down how the run ended: a signal's name, "" for by itself, `RUNNING` while it has not ended."""
    await ledger.meta_set(LAST_END_NAME, json.dumps({"how": how, "at": clocks.wall()}))


async def last_end_note(ledger: Ledger) -> str:
    """Return what to say about the last run's end; "" when it ended by itself or by Ctrl-C."""
    try:
        last = json.loads(await ledger.meta_get(LAST_END_NAME) or "{}")
        return _NOTES.get(last.get("how", ""), "").format(at=iso(float(last.get("at", 0.0))))
    except (ValueError, TypeError, AttributeError):
        return ""
