"""When a create may leave: only while its intent is as old as it says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from pipeline import clocks
from pipeline.client.connection import MAX_CONNECT_S, RequestTrace, on_connected
from pipeline.client.vendor_clock import JUMP_S

CALLED_AT = 1_800_000_000.0


def called(waited_s: float, passed_s: float, monkeypatch: pytest.MonkeyPatch) -> RequestTrace:
    """Return a create since whose call one clock has gone on by `waited_s` and the other by `passed_s`."""
    monkeypatch.setattr(clocks, "monotonic", lambda: 500.0 + waited_s)
    monkeypatch.setattr(clocks, "wall", lambda: CALLED_AT + passed_s)
    return RequestTrace(called_clock=500.0, called_at=CALLED_AT)


async def connect(trace: RequestTrace) -> None:
    unused = cast("Any", None)
    await on_connected(unused, SimpleNamespace(trace_request_ctx=trace), unused)


@pytest.mark.parametrize(
    ("waited_s", "passed_s"),
    [(0.0, 0.0), (MAX_CONNECT_S, MAX_CONNECT_S), (3.0, 3.0 + JUMP_S), (3.0, 3.0 - JUMP_S)],
)
async def test_create_leaves_soon_after_it_was_called(
    waited_s: float, passed_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = called(waited_s, passed_s, monkeypatch)
    await connect(trace)
    assert trace.connected


@pytest.mark.parametrize(
    ("waited_s", "passed_s"),
    [
        pytest.param(31.0, 31.0, id="this process stood still"),
        pytest.param(31.0, 0.0, id="this process stood still while the clock was set back"),
        pytest.param(1.0, 900.0, id="this machine slept"),
        pytest.param(1.0, 900.0 - 3600.0, id="this machine slept, and its clock was set back by more"),
        pytest.param(
            1.0, 3620.0 - 3600.0, id="this machine slept, and its clock was set back by a little less"
        ),
    ],
)
async def test_create_that_was_called_long_ago_is_kept_back(
    waited_s: float, passed_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = called(waited_s, passed_s, monkeypatch)
    with pytest.raises(aiohttp.ClientConnectionError, match="stood still"):
        await connect(trace)
    assert not trace.connected


async def test_create_whose_lease_is_over_is_kept_back() -> None:
    trace = RequestTrace(lambda: False)
    with pytest.raises(aiohttp.ClientConnectionError, match="lease"):
        await connect(trace)
