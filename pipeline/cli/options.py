"""Options that several commands share. Light: it is imported before a command is known to be run."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.paths import DEFAULT_LEDGER_CHOICE, LedgerChoice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pipeline.plan import RetrySelection


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


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What `--engine ray` was given; `address` None starts a cluster on this machine."""

    workers: int
    address: str | None
    lease_s: float

    @classmethod
    def from_flags(
        cls, workers: int | None, ray_address: str | None, lease_s: float | None
    ) -> ClusterOptions:
        return cls(workers or 2, ray_address, lease_s or 30.0)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the user asked for, as the options say it."""

    manifest: Path
    argv: tuple[str, ...] = ()
    output: str | None = None
    ledger_choice: LedgerChoice = DEFAULT_LEDGER_CHOICE
    cluster: ClusterOptions | None = None
    sandbox: bool = False
    sandbox_speed: float = 20.0
    base_url: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    retry_failed: bool = False
    only: frozenset[str] = frozenset()
    resubmit_in_doubt: bool = False
    begin_anew: bool = False
    serve: str | None = None
    junit: Path | None = None
    notify: tuple[str, ...] = ()
    yes: bool = False
    as_json: bool = False
    quiet: bool = False
    verbose: int = 0

    @property
    def retry(self) -> RetrySelection:
        from pipeline.plan import RetrySelection

        return RetrySelection(self.retry_failed, self.only)
