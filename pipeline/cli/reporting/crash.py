"""What a bug of ours leaves behind: one line for the user, and the traceback in a file."""

from __future__ import annotations

import contextlib
import tempfile
from traceback import format_exception
from typing import TYPE_CHECKING

import click

from pipeline.errors import ExitCode
from pipeline.results.run_log import Redactor

if TYPE_CHECKING:
    from collections.abc import Sequence


def report_crash(error: BaseException, secrets: Sequence[str] = ()) -> int:
    """Report an unexpected error outside of a run, where there is no log; return its exit code."""
    text = Redactor(secrets)("".join(format_exception(error)))
    where = "its traceback could not be written"
    with (
        contextlib.suppress(OSError),
        tempfile.NamedTemporaryFile(
            "w", prefix="veobatch-crash-", suffix=".log", delete=False, encoding="utf-8", errors="replace"
        ) as file,
    ):
        file.write(text)
        where = f"its traceback is in {file.name}"
    message = f"veobatch: unexpected error, a bug of veobatch ({type(error).__name__}); {where}"
    with contextlib.suppress(OSError):
        click.echo(message, err=True)
    return int(ExitCode.CRASH)
