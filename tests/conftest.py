"""What all suites share: time limits, signals, what coverage leaves out, which tests go to one worker."""

from __future__ import annotations

import gc
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Generator

settings.register_profile("suite", deadline=None)  # a busy machine is no failure
settings.load_profile("suite")

SHARED_SERVERS: Final = {
    "tests/browser/": "browser",
    "tests/cluster/test_bad_address.py": "Ray of their own",
    "tests/cluster/test_cluster.py::test_workers_and_drivers_are_killed": "Ray of their own",
    "tests/cluster/test_process_deaths.py::test_ray_itself_is_killed": "Ray of their own",
    "tests/cluster/": "cluster",
    "tests/integration/test_container.py": "packages",
    "tests/integration/test_mcp.py": "mcp",
    "tests/integration/test_wheel.py": "packages",
}
"""What shares something dear (Chromium, Ray, a build, an SDK): an id belongs to the first it begins with.

The cluster's tests are the longest chain of all; those that need no shared Ray are a chain of their own.
"""


UNTRACED: Final = (
    *("tests/browser/", "tests/cluster/", "tests/crash/", "tests/simulation/"),
    *("tests/integration/test_acceptance_", "tests/integration/test_e2e_"),
)
"""Tests of other processes and of simulated worlds: coverage makes them slower and gains nothing."""


def pytest_configure() -> None:
    """Undo for children that `nohup` or a shell's `&` ignores signals: a handler is not inherited."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(UNTRACED):
            item.add_marker("no_cover")


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Stop tracing for `no_cover`: in a worker pytest-cov pauses one tracer of two, and the other goes on."""
    tracer = sys.gettrace()
    if item.get_closest_marker("no_cover"):
        sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Search for no garbage among 5,000 tests while they are collected: it is an eighth of that time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Keep 5,000 tests, which stay to the end, out of each full garbage collection."""
    gc.collect()
    gc.freeze()


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
