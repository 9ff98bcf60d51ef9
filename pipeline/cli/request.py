"""What the user asked for, as the options say it, and as it stands once it is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.cli.paths import DEFAULT_LEDGER_CHOICE
from pipeline.plan import RetrySelection

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.cli.manifest_loading import ParsedManifest
    from pipeline.cli.paths import BatchPaths, LedgerChoice
    from pipeline.client import ApiKey
    from pipeline.settings import Settings
    from pipeline.storage import OutputStore


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
    serve: str | None = None
    junit: Path | None = None
    notify: tuple[str, ...] = ()
    yes: bool = False
    as_json: bool = False
    quiet: bool = False
    verbose: int = 0

    @property
    def retry(self) -> RetrySelection:
        return RetrySelection(self.retry_failed, self.only)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that is decided before the loop starts."""

    options: RunOptions
    parsed: ParsedManifest
    settings: Settings
    paths: BatchPaths
    store: OutputStore
    key: ApiKey
    base_url: str
