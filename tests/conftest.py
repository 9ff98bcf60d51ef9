"""What all suites share: the time Hypothesis has, and which tests go to one worker."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import settings

settings.register_profile("suite", deadline=None)  # a busy machine is no failure
settings.load_profile("suite")

SHARED_SERVERS: Final = {
    "tests/browser/": "browser",
    "tests/cluster/": "cluster",
    "tests/integration/test_container.py": "packages",
    "tests/integration/test_wheel.py": "packages",
}
"""Tests that start something dear (Chromium, Ray, a build) and share it, by the beginning of their ids."""


def group_of(nodeid: str) -> str:
    """Name what must go to one worker together: a group of `SHARED_SERVERS`, or the test itself."""
    return next((group for path, group in SHARED_SERVERS.items() if nodeid.startswith(path)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Group by `group_of`. xdist's own groups are in ids it changes, which pytest 9.2 no longer lets it do
    (pytest-xdist issue 1386): they were ignored without a word."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = group_of
    return scheduler
