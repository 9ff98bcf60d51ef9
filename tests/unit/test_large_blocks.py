"""The C library is told what to do with large blocks, where it listens."""

from __future__ import annotations

import platform

from pipeline.cli.app import return_large_blocks


def test_glibc_takes_every_option_and_others_are_left_alone() -> None:
    assert return_large_blocks() == (platform.libc_ver()[0] == "glibc")
