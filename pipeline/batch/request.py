"""What a run is asked to do, by the command or by a program."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.batch.paths import DEFAULT_LEDGER_CHOICE, LedgerChoice

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.client import ApiKey
    from pipeline.plan import RetrySelection
    from pipeline.selection import Selection


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
class RunRequest:
    """What was asked for, before anything is read or opened.

    `data` is the manifest's text when it was made in code; `manifest` then only names it. `argv` are the
    arguments of the command that continues this run, empty when no command does. `key` None is looked up in
    the environment. `flags` and `environment` are settings by their names in `Settings`.
    """

    manifest: Path
    data: bytes | None = None
    model: str | None = None
    takes: int | None = None
    retake: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    output: str | None = None
    ledger_choice: LedgerChoice = DEFAULT_LEDGER_CHOICE
    cluster: ClusterOptions | None = None
    sandbox: bool = False
    sandbox_speed: float = 20.0
    base_url: str | None = None
    key: ApiKey | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    retry_failed: bool = False
    only: frozenset[str] = frozenset()
    resubmit_in_doubt: bool = False
    begin_anew: bool = False
    as_new: bool = False
    select: tuple[str, ...] = ()
    limit: int | None = None
    receipts: bool = False
    on_done: str | None = None
    webhook: str | None = None
    allow_private_webhook: bool = False

    @property
    def retry(self) -> RetrySelection:
        from pipeline.plan import RetrySelection
        from pipeline.selection import FAILED, matches_id

        wanted = self.retry_failed or FAILED in self.select
        return RetrySelection(wanted, self.only, partial(matches_id, patterns=self.select))

    @property
    def selection(self) -> Selection:
        from pipeline.selection import Selection

        return Selection(self.select, self.limit)
