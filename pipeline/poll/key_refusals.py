"""Polls that are answered with 401: whether the key is really refused, or one server did not know it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from pipeline.client.account import key_problem
from pipeline.client.responses import StatusError
from pipeline.errors import StopReason

if TYPE_CHECKING:
    from pipeline.run_context import RunContext

MAX_KEY_REFUSALS: Final = 3
"""After so many polls in a row that are answered with 401, the vendor is asked about the key itself."""

PATIENCE_INTERVALS: Final = 18.0
"""So many poll intervals of nothing but 401 outweigh what `GET /v1/key` says: three minutes at 10 s."""


class KeyRefusals:
    """Stops the run for a key that is refused, not for a while in which `GET /v1/key` shows that it works."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._in_a_row = 0
        self._first_at = 0.0
        self._asked_at = -inf

    def on_answer(self) -> None:
        """A poll was answered otherwise."""
        self._in_a_row = 0

    async def on_refused(self, error: StatusError) -> bool:
        """Count a 401; return True once the key is refused: the run is stopped, and no poll makes sense."""
        run, now = self._run, self._run.deps.clock()
        if self._in_a_row == 0:
            self._first_at = now
        self._in_a_row += 1
        if self._in_a_row < MAX_KEY_REFUSALS:
            return False
        # Many polls end at the same moment: one of them asks.
        if now - self._asked_at < run.settings.poll_interval:
            return run.state.stop_reason is StopReason.KEY
        self._asked_at = now
        key = await run.deps.api.key_info()
        works = not isinstance(key, StatusError) and key_problem(key) is None
        if works and now - self._first_at < PATIENCE_INTERVALS * run.settings.poll_interval:
            return False
        source = run.deps.api.key.source
        run.stop_submitting(StopReason.KEY, f"the key read from {source} was refused: {error.message}")
        return True
