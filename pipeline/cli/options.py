"""Options that several commands share. Light: it is imported before a command is known to be run."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.paths import LedgerChoice

if TYPE_CHECKING:
    from collections.abc import Callable


def ledger_options(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command `--ledger` and `--batch`; both reach it as `ledger_choice`."""

    @click.option(
        "--ledger",
        metavar="URL|FILE",
        envvar="VEOBATCH_LEDGER",
        help="Where the ledger is: postgresql://... or a file.  [default: a file in the batch's folder]",
    )
    @click.option(
        "--batch", metavar="NAME", help="The batch's name in --ledger.  [default: the manifest's name]"
    )
    @wraps(function)
    def with_ledger_choice(*args: Any, ledger: str | None, batch: str | None, **options: Any) -> int:
        return function(*args, ledger_choice=LedgerChoice(ledger, batch), **options)

    return with_ledger_choice
