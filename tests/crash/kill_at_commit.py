"""The command, in a process that dies at a chosen commit: `python -m tests.crash.dying after 3 run ...`.

`before N` is killed when it is about to make its N-th commit, `after N` as soon as that is durable and
before anyone has heard of it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Arm the ledger, then be the command."""
    from pipeline.cli import main as command
    from pipeline.ledger.backend import LedgerBackend

    _, moment, number, *sys.argv[1:] = sys.argv
    original_apply = LedgerBackend.apply
    left = int(number)

    def apply(store: LedgerBackend, moves: Sequence[Any]) -> list[Any]:
        nonlocal left
        left -= bool(moves)
        if left == 0 and moves and moment == "before":
            kill_self()
        made = original_apply(store, moves)
        if left == 0 and moves:
            kill_self()
        return made

    setattr(
        LedgerBackend, original_apply.__name__, apply
    )  # the one place where a commit can be met from outside
    command()


if __name__ == "__main__":
    main()
