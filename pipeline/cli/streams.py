"""The standard streams: always there, able to hold any character, and never what decides the exit code."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from typing import TextIO


def open_streams() -> None:
    """Open what the caller has closed (`>&-`), and let every stream take every character.

    A number that is free is the next file's, and what is printed there would go into a ledger.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    sys.stdin = sys.stdin or open(0, closefd=False, encoding="utf-8")  # noqa: SIM115 - as long as the process
    sys.stdout = sys.stdout or open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A Windows code page, or LANG=C, has not every character of a prompt: that must not end a run.
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):  # of an odd kind
                stream.reconfigure(errors="replace")


def discard_stdout() -> None:
    """Point standard output at nothing, so that what is still buffered cannot fail at exit."""
    _discard(sys.stdout)


def stdout_failed() -> bool:
    """Whether standard output cannot be written (a full disk, a terminal that is gone); it is reported."""
    try:
        sys.stdout.flush()
    except OSError as error:
        discard_stdout()
        with contextlib.suppress(OSError):
            click.echo(f"veobatch: the output cannot be written: {error.strerror}", err=True)
        return True
    return False


def close_streams() -> None:
    """Write out what is buffered, or drop it: the interpreter would end with a code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _discard(stream)


def _discard(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
