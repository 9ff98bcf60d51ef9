"""Options that several commands share. Light: it is imported before a command is known to be run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click

from pipeline.batch.paths import LedgerChoice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pipeline.batch.request import RunRequest
    from pipeline.manifest import Manifest
    from pipeline.settings import Settings


RUN_OPTION_GROUPS: Final = {
    "Everyday options": (
        "sandbox", "output", "max_cost", "yes", "limit", "select", "takes", "retake", "retry_failed",
        "concurrency", "timeout", "as_json", "quiet", "verbose",
    ),
    "Rows in doubt, quotas and second thoughts": (
        "reconcile_after", "reconcile_wait", "resubmit_in_doubt", "begin_anew", "only", "as_new",
        "generation_retries", "wait_for_quota", "assume_price", "model",
    ),
    "Videos and images": (
        "name", "downloads", "max_video_bytes", "no_media", "verify", "fetch_missing", "check_images",
        "allow_private_images", "image_store", "image_store_public", "image_link_life", "image_base_url",
        "fit",
    ),
    "Reports": ("serve", "junit", "notify", "receipts", "on_done", "webhook", "allow_private_webhook"),
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


def picture_options(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options that say how pictures that are files reach the vendor."""
    for name, metavar in (("image_base_url", "URL"), ("image_store", "URL")):
        flag, variable = f"--{name.replace('_', '-')}", f"VEOBATCH_{name.upper()}"
        text = "How pictures that are files will reach the vendor; see run."
        function = click.option(flag, name, metavar=metavar, envvar=variable, help=text)(function)
    return function


def picture_settings(ways: Mapping[str, Any], manifest: Manifest) -> Settings:
    """Return the settings of a manifest, as far as its pictures are concerned."""
    from pipeline.settings import resolve

    return resolve([("the command line", ways), (f"{manifest.path}: run", manifest.run)])


takes_option: Final = click.option(
    "--takes",
    type=click.IntRange(1, 100),
    metavar="N",
    help="How many goes at every row, to choose among, whatever the manifest says.",
)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What `veobatch run` was given: what to do, and how to show it."""

    request: RunRequest
    serve: str | None = None
    junit: Path | None = None
    notify: tuple[str, ...] = ()
    yes: bool = False
    as_json: bool = False
    quiet: bool = False
    verbose: int = 0

    @property
    def manifest(self) -> Path:
        return self.request.manifest
