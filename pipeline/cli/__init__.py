"""The command `veobatch`. A subcommand's module is imported when it is called, not before."""

from __future__ import annotations

import contextlib
import os
from importlib import import_module
from typing import TYPE_CHECKING, Final, NoReturn

import click

from pipeline import __version__
from pipeline.cli import signals
from pipeline.cli.streams import close_streams, discard_stdout, open_streams, stdout_failed
from pipeline.errors import ExitCode, ManifestError, UsageError, VeobatchError

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMANDS: Final = {
    "init": "Write a manifest of a folder of pictures.",
    "run": "Animate every row of a manifest; again to continue.",
    "validate": "Find every problem of a manifest; spends and submits nothing.",
    "estimate": "Price a manifest by row and in all, and show the balance.",
    "status": "Count a batch's rows by state, also while a run is going on.",
    "report": "Write results.csv and report.html again, from the ledger.",
    "pick": "Choose among the takes of a row; the chosen clips are in picks/.",
    "review": "Serve the page of a batch, to choose among its takes there.",
    "reel": "Join the picks to one film, with a contact sheet.",
    "verify": "Read every saved video and compare it with what was saved.",
    "costs": "Compare what was charged with the vendor's own log.",
    "reconcile": "Ask the vendor's log about rows in doubt, settle what is proven, and end.",
    "adopt": "Take over a generation that was made elsewhere.",
    "doctor": "Check network, address, key, folder and manifest; spends nothing.",
    "schema": "Print the JSON Schema of manifests, for editors.",
    "mcp": "Let an assistant validate, run and read batches, within a budget.",
    "sandbox": "Serve the stand-in API: free, offline, with faults by name.",
}

_MODULES: Final = {name: f"takes.{name}" for name in ("pick", "review", "reel")}
"""Where a command is when not in the module of its name."""

BROKEN_PIPE_EXIT_CODE: Final = 141
"""What a shell reports of a program that SIGPIPE ended."""


class LazyCommands(click.Group):
    """A group whose help needs no command's module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = import_module(f"pipeline.cli.{_MODULES.get(name, name)}").command
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            reject_empty_values(command, rest, os.environ)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def reject_empty_values(command: click.Command, args: list[str], environ: Mapping[str, str]) -> None:
    """Raise `UsageError` for a value that is there and empty, usually a shell variable that is not set.

    Taken for "not given", `--ledger ""` would begin a new ledger and pay for everything again.
    """
    context = click.Context(command, resilient_parsing=True)
    try:
        given = command.make_parser(context).parse_args(list(args))[0]
    except click.UsageError:
        return  # click explains what is wrong when it parses the arguments itself
    for parameter in command.params:
        value = given.get(parameter.name)
        values = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(one, str) and not one.strip() for one in values):
            label = (
                parameter.opts[0] if isinstance(parameter, click.Option) else parameter.make_metavar(context)
            )
            raise UsageError(f"{label} is empty: is the variable that should hold it set?")
        variable = parameter.envvar
        if value is None and isinstance(variable, str) and environ.get(variable, "set").strip() == "":
            raise UsageError(f"{variable} is set but empty: give it a value, or unset it")


@click.group(
    cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="veobatch")
def cli() -> None:
    """Turn a manifest of (image_url, prompt) pairs into a folder of finished MP4s and a results CSV.

    Paid once, never lost: run the same command again to continue, whatever happened.

    \b
    Try it, free and without a key:   veobatch run --sandbox
    For real, with AIMLAPI_API_KEY:   veobatch run jobs/mona-lisa.yaml
    """


def main() -> NoReturn:
    """Run the command and exit with its code; the one place where everything is caught."""
    open_streams()
    guard = signals.current()
    guard.install()
    code = _run()
    close_streams()
    guard.leave(code)


def _run() -> int:
    try:
        result = cli.main(prog_name="veobatch", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        _annotate(error.format_message())
        return int(ExitCode.USAGE)
    except VeobatchError as error:
        from pipeline.cli.reporting.problems import error_text

        click.echo(error_text(error), err=True)
        if not isinstance(error, ManifestError):  # its problems are marked one by one
            _annotate(str(error))
        return int(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        with contextlib.suppress(OSError):
            click.echo("veobatch: interrupted", err=True)
        return int(getattr(error.__cause__ or error, "exit_code", ExitCode.INTERRUPTED))
    except BrokenPipeError:
        discard_stdout()
        return BROKEN_PIPE_EXIT_CODE
    except Exception as error:
        if isinstance(error, OSError) and stdout_failed():
            return int(ExitCode.RESUMABLE)
        from pipeline.cli.reporting.crash import report_crash

        return report_crash(error)
    return result if isinstance(result, int) else int(ExitCode.DONE)


def _annotate(message: str) -> None:
    """On GitHub Actions, mark the step with an error."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from pipeline.cli.reporting.ci import annotation

        click.echo(annotation("error", message, title="veobatch"), err=True)
