"""Polls that are answered with 401: only a key that is refused itself ends the polling."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pipeline.client import KeyInfo, StatusError
from pipeline.errors import StopReason
from pipeline.poll.key_refusals import MAX_KEY_REFUSALS, KeyRefusals

if TYPE_CHECKING:
    from pipeline.run_context import RunContext

POLL_401 = StatusError(401, "HTTP 401: Unauthorized")
WORKS = KeyInfo(disabled=False, scopes=None, limit=None, usage_usd=0.0)
DISABLED = KeyInfo(disabled=True, scopes=None, limit=None, usage_usd=0.0)


class Polls:
    """A run whose polls are answered with 401, and what `GET /v1/key` answers."""

    def __init__(self, key: KeyInfo | StatusError) -> None:
        self.key_answer, self.asked, self.now = key, 0, 100.0
        self.state = SimpleNamespace(stop_reason=None)
        self.key = SimpleNamespace(source="AIMLAPI_API_KEY")
        run = SimpleNamespace(
            state=self.state,
            deps=SimpleNamespace(api=self, clock=lambda: self.now),
            settings=SimpleNamespace(poll_interval=10.0),
            stop_submitting=self.stop,
        )
        self.refusals = KeyRefusals(cast("RunContext", run))

    async def key_info(self) -> KeyInfo | StatusError:
        self.asked += 1
        return self.key_answer

    def stop(self, reason: StopReason, message: str) -> None:
        self.state.stop_reason, self.message = reason, message

    async def refuse(self, times: int) -> list[bool]:
        return [await self.refusals.on_refused(POLL_401) for _ in range(times)]


async def test_a_server_that_does_not_know_the_key_for_a_moment_ends_nothing() -> None:
    polls = Polls(WORKS)
    assert await polls.refuse(10 * MAX_KEY_REFUSALS) == [False] * 10 * MAX_KEY_REFUSALS
    assert (polls.state.stop_reason, polls.asked) == (None, 1)
    for _ in range(30):
        polls.now += 10.0
        assert not any(await polls.refuse(MAX_KEY_REFUSALS))
        polls.refusals.on_answer()
    assert polls.asked == 31


async def test_minutes_of_nothing_else_end_the_polling_whatever_is_said_of_the_key() -> None:
    polls = Polls(WORKS)
    for _ in range(18):
        assert not any(await polls.refuse(MAX_KEY_REFUSALS))
        polls.now += 10.0
    assert any(await polls.refuse(MAX_KEY_REFUSALS))
    assert polls.state.stop_reason is StopReason.KEY


@pytest.mark.parametrize(
    "key", [StatusError(401, "HTTP 401"), StatusError(404, "HTTP 404"), StatusError(0, "no answer"), DISABLED]
)
async def test_a_key_that_is_refused_or_of_which_nothing_is_said_ends_the_polling(
    key: KeyInfo | StatusError,
) -> None:
    polls = Polls(key)
    assert await polls.refuse(MAX_KEY_REFUSALS + 1) == [False] * (MAX_KEY_REFUSALS - 1) + [True, True]
    assert polls.state.stop_reason is StopReason.KEY
    assert "AIMLAPI_API_KEY was refused: HTTP 401: Unauthorized" in polls.message
    assert polls.asked == 1


async def test_only_refusals_in_a_row_count() -> None:
    polls = Polls(StatusError(401, "HTTP 401"))
    for _ in range(5):
        assert not any(await polls.refuse(MAX_KEY_REFUSALS - 1))
        polls.refusals.on_answer()
    assert polls.asked == 0
