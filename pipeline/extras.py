"""Packages that only some features need: what to install for one, from a clone as well as from an index."""

from __future__ import annotations

import shlex
from importlib import metadata

from pipeline.errors import UsageError


def missing_extra(feature: str, extra: str) -> UsageError:
    """Return the error for a `feature` whose packages, those of `extra`, are not installed."""
    return UsageError(f"{feature} needs more packages: {install_command(extra)}")


def install_command(extra: str) -> str:
    """Return the command that installs an extra's packages by their own names.

    `veobatch[extra]` would look for this package on an index, where the name may be somebody else's.
    """
    try:
        required = metadata.requires("veobatch") or []
    except metadata.PackageNotFoundError:
        required = []
    marker = f'extra == "{extra}"'
    packages = [text.partition(";")[0].strip() for text in required if marker in text]
    return f"pip install {shlex.join(packages or [f'.[{extra}]'])}"
