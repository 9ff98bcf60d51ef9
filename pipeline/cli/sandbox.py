"""The command `veobatch sandbox`: the stand-in API as a server of its own, until it is stopped."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.sandbox import Fault, Sandbox, SandboxOptions

FAULT_SYNTAX = "NAME[:match|share][*TIMES][=VALUE][/problem][/id]"
FAULT_PATTERN = re.compile(r"([^:*=]*)(?::([^*=]*))?(?:\*([^=]*))?(?:=(.*))?", re.DOTALL)
FAULT_FLAGS = ("problem", "classic", "id")
KEY_SYNTAX = "KEY[,disabled][,scope=model:NAME][,limit=USD[/day]]"
RETIREMENT_SYNTAX = "MODEL=STATUS[,DATE][,REPLACEMENT]"


def show_faults(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """Print the table of faults and exit."""
    if not wanted or context.resilient_parsing:
        return
    from pipeline.sandbox import FAULTS

    stage = ""
    for kind in FAULTS.values():
        if kind.point != stage:
            stage = kind.point
            click.echo(f"\n{stage}:")
        click.echo(f"  {kind.name:24}{kind.description}")
    context.exit()


def parse_fault(text: str) -> Fault:
    """`FAULT_SYNTAX`: a number from 0 to 1 after the colon is a share, any other text a match.

    `/problem` or `/classic` at the end chooses the shape of the error; `/id` adds `x-inference-id` to the
    page of a gateway. Raises `click.BadParameter` for a name that no fault has.
    """
    from pipeline.sandbox import FAULTS, Fault

    text, flags = _split_flags(text)
    match = FAULT_PATTERN.fullmatch(text)
    name, target, times, value = match.groups("") if match is not None else (text, "", "", "")
    if name not in FAULTS:
        raise click.BadParameter(f"no fault is called {name!r}; --list-faults names them all")
    if times and not times.isdecimal():
        raise click.BadParameter(f"{text!r}: after the star comes a whole number")
    share = _share(target)
    return Fault(
        name,
        match="" if share is not None else target,
        share=1.0 if share is None else share,
        times=int(times) if times else None,
        value=value or None,
        shape="problem" if "problem" in flags else "classic" if "classic" in flags else None,
        with_inference_id="id" in flags,
    )


def _split_flags(text: str) -> tuple[str, set[str]]:
    flags = set()
    while text.endswith(tuple(f"/{flag}" for flag in FAULT_FLAGS)):
        text, _, flag = text.rpartition("/")
        flags.add(flag)
    return text, flags


def _share(text: str) -> float | None:
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None


@click.command("sandbox")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 picks a free one."
)
@click.option(
    "--cdn-port", type=click.IntRange(0, 65535), default=0, help="The CDN's port. Default: a free one."
)
@click.option("--speed", type=float, default=1.0, show_default=True, help="20 renders twenty times faster.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar=KEY_SYNTAX,
    help="Let in this key only, with what it may do and spend. May be given again. Default: any key.",
)
@click.option("--management-key", help="May read the log of any key. Default: sandbox-management-key.")
@click.option(
    "--retire",
    "retired",
    multiple=True,
    metavar=RETIREMENT_SYNTAX,
    help="Deprecate, supersede or withdraw a model. May be given again.",
)
@click.option(
    "--clock-offset", "clock_offset_s", type=float, help="Seconds by which the vendor's clock is ahead."
)
@click.option(
    "--error-shape",
    type=click.Choice(["classic", "problem"]),
    help="The shape of errors.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed renders alike.")
@click.option(
    "--durations",
    default="lognormal",
    show_default=True,
    help="How long clips render: lognormal[:MEDIAN[,SIGMA]], two-modes, uniform[:LOW,HIGH] or fixed:SECONDS.",
)
@click.option(
    "--balance", "balance_usd", type=float, default=1000.0, show_default=True, help="Credits, in USD."
)
@click.option("--limit", "concurrency_limit", type=int, help="429 beyond so many generations at once.")
@click.option(
    "--url-lifetime", "url_lifetime_s", type=float, help="Sign video URLs; they expire after so many seconds."
)
@click.option("--fetch-images", is_flag=True, help="Fetch the images that links name; refuse what is none.")
@click.option("--small", is_flag=True, help="Tiny clips without a caption, for thousands of them.")
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep generations in FILE, and continue with those that it holds.",
)
@click.option("--fault", "faults", multiple=True, metavar=FAULT_SYNTAX, help="Misbehave. May be given again.")
@click.option(
    "--list-faults",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_faults,
    help="List all faults.",
)
def command(
    faults: tuple[str, ...], keys: tuple[str, ...], retired: tuple[str, ...], small: bool, **values: object
) -> None:
    """Serve the stand-in API: free, offline, with faults by name.

    The first line on stdout is its URL. Ctrl-C or SIGTERM stops it.

    \b
    Faults:  --fault throttled:0.1            one create in ten is throttled
             --fault "error:cat*1"            the job with "cat" in its prompt fails, once
             --fault "cdn-cut*2=0.3"          each download is cut at 30 %, twice
    """
    from pipeline.sandbox import SandboxOptions, parse_key, parse_retirement

    wanted = [parse_fault(text) for text in faults]
    given = {name: value for name, value in values.items() if value is not None}
    try:
        options = SandboxOptions(
            **given,  # type: ignore[arg-type]  # click has converted them
            keys=tuple(parse_key(text) for text in keys),
            retired=tuple(parse_retirement(text) for text in retired),
            video="small" if small else "rendered",
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    _serve(options, wanted)


def _serve(options: SandboxOptions, faults: list[Fault]) -> None:
    import asyncio

    try:
        asyncio.run(_until_stopped(options, faults))
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {options.host}:{options.port}: {error.strerror}"
        ) from error


async def _until_stopped(options: SandboxOptions, faults: list[Fault]) -> None:
    import asyncio
    import signal

    from pipeline.sandbox import Sandbox

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Sandbox(options) as sandbox:
        for fault in faults:
            sandbox.add_fault(fault)
        _print_startup_message(sandbox, options)
        await stop.wait()


def _print_startup_message(sandbox: Sandbox, options: SandboxOptions) -> None:
    key = options.key_rules[0].key if options.key_rules else "anything"
    click.echo(sandbox.url)
    click.echo(f"  videos from {sandbox.cdn_url}, rendered at {options.speed:g} times the usual speed")
    click.echo("  point veobatch at it:")
    click.echo(f"    AIMLAPI_API_KEY={key} veobatch run MANIFEST --base-url {sandbox.url}")
    if options.journal is not None:
        click.echo(f"  keeps generations in {options.journal}: {len(sandbox.state.generations)} so far")
    for note in sandbox.journal_warnings:
        click.echo(f"  {note}")
    click.echo("  Ctrl-C stops it")
