"""Options that several commands share. Light: it is imported before a command is known to be run."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click

from pipeline.batch.paths import DEFAULT_LEDGER_CHOICE, LedgerChoice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pipeline.plan import RetrySelection


RUN_OPTION_GROUPS: Final = {
    "Everyday options": (
        "sandbox", "output", "max_cost", "yes", "takes", "retake", "retry_failed", "concurrency", "timeout",
        "as_json", "quiet", "verbose",
    ),
    "Rows in doubt, quotas and second thoughts": (
        "reconcile_after", "reconcile_wait", "resubmit_in_doubt", "begin_anew", "only", "as_new",
        "generation_retries", "wait_for_quota", "assume_price", "limit", "select", "model",
    ),
    "Videos and images": (
        "name", "downloads", "max_video_bytes", "no_media", "verify", "fetch_missing", "check_images",
        "allow_private_images",
    ),
    "Reports": ("serve", "junit", "notify"),
}  # fmt: skip
"""What `run --help` shows under which heading; every other option comes last."""

LAST_GROUP: Final = "Rarely needed"


class GroupedOptions(click.Command):
    """A command whose help shows its options in groups, the rare ones last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in (*RUN_OPTION_GROUPS, LAST_GROUP)}
        titles = {name: title for title, names in RUN_OPTION_GROUPS.items() for name in names}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups[titles.get(parameter.name or "", LAST_GROUP)].append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


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


model_option: Final = click.option(
    "--model",
    metavar="NAME",
    help="Another model in place of the manifest's default one, in every row that has that.",
)


takes_option: Final = click.option(
    "--takes",
    type=click.IntRange(1, 100),
    metavar="N",
    help="How many goes at every row, to choose among, whatever the manifest says.",
)


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
    flags: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    retry_failed: bool = False
    only: frozenset[str] = frozenset()
    resubmit_in_doubt: bool = False
    begin_anew: bool = False
    as_new: bool = False
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
