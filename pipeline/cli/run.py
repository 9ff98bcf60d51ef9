"""`veobatch run`: its options, and nothing of how they are carried out."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.init import folder_options
from pipeline.cli.options import GroupedOptions, ledger_options, model_option, takes_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.cli.options import RunOptions

_SETTINGS_HELP = {
    "concurrency": "Generations in flight at the vendor, at most. With --engine ray about: a row in doubt"
    " gives its slot back once it can hardly be rendering any more.  [default: 20]",
    "downloads": "Downloads at once.  [default: 8]",
    "poll_interval": "Time between polls of a generation before the run has learned how long they take, in "
    "seconds.  [default: 10]",
    "timeout": "A generation's deadline in seconds; then it is left for the next run.  [default: 1800]",
    "request_timeout": "How long an API request may take, in seconds.  [default: 60]",
    "reconcile_after": "How long a row's absence from the vendor's log leaves it in doubt, in seconds."
    "  [default: 2700]",
    "reconcile_wait": "How long a run that has nothing else left stays for rows in doubt, in seconds."
    "  [default: until they are settled]",
    "generation_retries": "How often a generation that failed by a fault (not charged) is made again."
    "  [default: 1]",
    "max_cost": "The most this manifest may cost in USD, over all its runs.",
    "assume_price": "The price in USD of a row whose price is unknown, for --max-cost.",
    "name": "How video files are named: {id}, {image}, {index:04d}, or any field.  [default: {id}]",
    "image_store": "Your bucket for pictures that are files: s3://bucket/prefix, gs:// or az://; each is "
    "uploaded once and handed out by signed links.",
    "image_link_life": "How long such a link lives, in seconds.  [default: --timeout and an hour]",
    "image_base_url": "Where the folder of the pictures is published already: https://host/stills/.",
    "fit": "What becomes of a picture whose shape is not the aspect_ratio: pad or crop.  [default: as it is]",
    "max_video_bytes": "The largest video that is saved.  [default: 2 GiB]",
}
_SETTINGS_FLAGS = (
    "wait_for_quota",
    "image_store_public",
    "check_images",
    "allow_private_images",
    "verify",
    "fetch_missing",
)
_SETTINGS_TYPES: dict[str, type] = {
    "concurrency": int,
    "downloads": int,
    "generation_retries": int,
    "max_video_bytes": int,
    "name": str,
    "image_store": str,
    "image_base_url": str,
    "fit": str,
}


def _settings_options(function: Any) -> Any:
    for name, help_text in reversed(_SETTINGS_HELP.items()):
        flag = f"--{name.replace('_', '-')}"
        value_type = _SETTINGS_TYPES.get(name, float)
        function = click.option(
            flag, name, type=value_type, help=help_text, envvar=f"VEOBATCH_{name.upper()}"
        )(function)
    return function


@click.command("run", cls=GroupedOptions)
@click.argument("manifest", type=click.Path(path_type=Path), required=False)
@click.option("--output", metavar="DIR|URL", help="Where videos go.  [default: output/<manifest's name>]")
@ledger_options
@click.option("--sandbox", is_flag=True, help="Run against the embedded stand-in: free, no key, no network.")
@click.option(
    "--sandbox-speed",
    type=click.FloatRange(0.01, 100_000),
    default=20.0,
    show_default=True,
    help="How much faster it renders.",
)
@click.option("--base-url", metavar="URL", help="The API's address.")
@model_option
@takes_option
@click.option(
    "--retake",
    metavar="rejected|ID",
    multiple=True,
    help="One more take of each row whose takes are all rejected, or of the row ID.",
)
@_settings_options
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where the work is done: in this process, or by workers that Ray places.",
)
@click.option(
    "--workers", type=click.IntRange(1, 1000), metavar="N", help="With --engine ray: how many.  [default: 2]"
)
@click.option(
    "--ray-address", metavar="ADDRESS", help="Ray's cluster; auto: this machine's.  [default: start one here]"
)
@click.option(
    "--lease",
    "lease_s",
    type=click.FloatRange(min=1.0),
    metavar="S",
    help="How long a worker may be silent before others get its rows, in seconds.  [default: 30]",
)
@folder_options
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Submit at most N rows in this run.")
@click.option(
    "--select",
    metavar="GLOB",
    multiple=True,
    help="Submit only rows whose id matches (repeatable); @failed: those that failed.",
)
@click.option("--retry-failed", is_flag=True, help="Try failed rows again.")
@click.option(
    "--only", "only", metavar="CODE", multiple=True, help="With --retry-failed: only this error code."
)
@click.option(
    "--resubmit-in-doubt",
    is_flag=True,
    help="Submit rows in doubt again, and those that an older ledger may have forgotten, even if that pays "
    "twice.",
)
@click.option(
    "--begin-anew",
    is_flag=True,
    help="Begin a new batch where an earlier one has lost its ledger, even if that pays twice.",
)
@click.option(
    "--as-new",
    is_flag=True,
    help="Pay for rows that are new although as many others vanished (a rewritten manifest).",
)
@click.option("--wait-for-quota", is_flag=True, default=None, help="Wait out a quota instead of stopping.")
@click.option("--verify", is_flag=True, default=None, help="Read every saved video again and compare it.")
@click.option(
    "--fetch-missing",
    is_flag=True,
    default=None,
    help="Download saved videos again that were moved away, and clips that could not be had.",
)
@click.option("--no-media", is_flag=True, help="Neither check the videos' streams nor make posters.")
@click.option(
    "--check-images", is_flag=True, default=None, help="Look at every image before anything is spent."
)
@click.option("--allow-private-images", is_flag=True, default=None, help="Allow images on private addresses.")
@click.option(
    "--image-store-public",
    is_flag=True,
    default=None,
    help="The image store is public: its links need no signature.",
)
@click.option(
    "--serve",
    metavar="[HOST:]PORT",
    envvar="VEOBATCH_SERVE",
    help="Serve the report while the run goes on; 0: any free port.",
)
@click.option(
    "--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write a JUnit file at the end."
)
@click.option("--notify", metavar="URL", multiple=True, help="Send a message at the end (apprise URL).")
@click.option("--receipts", is_flag=True, help="Write <id>.json beside each clip: all that made it.")
@click.option("--on-done", metavar="CMD", help="Run CMD at each row's end and the run's; JSON on its stdin.")
@click.option("--webhook", metavar="URL", help="Post the same to URL; signed with VEOBATCH_WEBHOOK_SECRET.")
@click.option("--allow-private-webhook", is_flag=True, help="Allow a webhook on a private address.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before spending money.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON summary on standard output.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only; nothing when all went well.")
@click.option(
    "--verbose",
    "-v",
    count=True,
    help="Print saved videos and decisions, too; -vv: every step of a row.",
)
def command(manifest: Path | None, **options: Any) -> int:
    """Animate every row of MANIFEST and save the videos; run it again to continue.

    MANIFEST may be a folder of pictures: a manifest of it is kept beside the output (see init).

    With --sandbox, MANIFEST may be left out: a built-in example of six clips is run.

    Exit codes: 0 every job done, 1 finished but some failed, 2 usage or manifest, 3 stopped early and
    resumable, 70 a bug of veobatch, 130 (Ctrl-C) and 143 (SIGTERM, SIGHUP) interrupted and resumable.
    """
    found = {name: options.pop(name) for name in ("prompt", "captions", "recursive")}
    pictures = manifest if manifest is not None and manifest.is_dir() else None
    if pictures is None and any(found.values()):
        raise click.UsageError("--prompt, --captions and --recursive are for a folder of pictures")
    with no_pydantic_plugins():
        from pipeline.cli.app import run
    from pipeline.errors import VeobatchError

    if pictures is not None:
        manifest = _manifest_of(pictures, options["output"])
    run_options = _run_options(manifest or _example(sandbox=options["sandbox"]), options)
    try:
        if pictures is not None:
            _add_pictures(pictures, run_options, found)
        return run(run_options)
    except VeobatchError as error:
        from pipeline.cli.reporting.notifications import report_early_end

        return report_early_end(error, run_options)


@contextmanager
def no_pydantic_plugins() -> Iterator[None]:
    """Import pydantic's models without its search for plugins, which reads the metadata of all that is
    installed (15 ms of a start). Other programs that this one starts may want theirs."""
    name = "PYDANTIC_DISABLE_PLUGINS"
    before = os.environ.get(name)
    os.environ[name] = "__all__"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _manifest_of(folder: Path, output: str | None) -> Path:
    """Return where the manifest of a folder of pictures is, or will be: beside the output."""
    from pipeline.manifest.local_files import as_stored

    place = Path("output") if output is None or "://" in output else Path(output).parent
    return as_stored(place / f"{folder.resolve().name}.yaml")


def _add_pictures(folder: Path, options: RunOptions, found: dict[str, Any]) -> None:
    """Add the folder's new pictures to its manifest. Raises `UsageError` when that is another folder's."""
    from pipeline.cli.init import make_manifest, report_repeated

    path = options.manifest
    made = make_manifest(folder, path, None, append=path.exists(), is_shared=False, **found)
    if made.added:
        click.echo(f"{path}: {made.added:,} row{'' if made.added == 1 else 's'} added", err=True)
    if not options.quiet:
        report_repeated(made)


def _example(*, sandbox: bool) -> Path:
    """Return the built-in manifest's path. Raises `click.UsageError` where a run could spend money."""
    if not sandbox:
        raise click.UsageError("Name a MANIFEST. To try without one, free of charge: veobatch run --sandbox")
    return Path(__file__).parents[1] / "manifest" / "example.yaml"


def _run_options(manifest: Path, options: dict[str, Any]) -> RunOptions:
    """Return what the options say. Raises `click.UsageError` for those that do not fit together."""
    from pipeline.batch.request import ClusterOptions, RunRequest
    from pipeline.cli.options import RunOptions

    context = click.get_current_context()
    flags: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    for name in (*_SETTINGS_HELP, *_SETTINGS_FLAGS):
        source = context.get_parameter_source(name)
        source_flags = environment if source is click.core.ParameterSource.ENVIRONMENT else flags
        source_flags[name] = options.pop(name)
    if options.pop("no_media"):
        flags["media"] = False
    only = options.pop("only")
    if only and not options["retry_failed"]:
        raise click.UsageError("--only CODE chooses among failed rows: give --retry-failed too")
    cluster_flags = {name: options.pop(name) for name in ("workers", "ray_address", "lease_s")}
    engine = options.pop("engine")
    if engine != "ray" and any(value is not None for value in cluster_flags.values()):
        raise click.UsageError("--workers, --ray-address and --lease are for --engine ray")
    shown = ("serve", "junit", "notify", "yes", "as_json", "quiet", "verbose")
    display = {name: options.pop(name) for name in shown}
    request = RunRequest(
        cluster=ClusterOptions.from_flags(**cluster_flags) if engine == "ray" else None,
        manifest=manifest,
        flags=flags,
        environment=environment,
        only=frozenset(only),
        argv=tuple(sys.argv[1:]),
        **options,
    )
    return RunOptions(request, **display)
