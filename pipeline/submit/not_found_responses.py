"""Rows whose creates are answered with 404: the fault of an address or a model, when no row fares better."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.errors import StopReason
from pipeline.model import State
from pipeline.submit.refused_rows import MIN_ROWS

if TYPE_CHECKING:
    from pipeline.model import Failure, Record
    from pipeline.run_context import RunContext


class NotFoundRows:
    """The rows answered with 404 since a create was last accepted, by their keys."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._rows: dict[str, Record] = {}

    def on_accepted(self) -> None:
        """Forget them: the address is right."""
        self._rows.clear()

    async def on_not_found(self, record: Record, failure: Failure) -> None:
        """Stop where every row is answered with 404: an address or a model that is gone fails no row.

        Rows of another model, if there are any left to try, go on.
        """
        run, rows = self._run, self._rows
        rows[record.key] = record
        models = {one.model for one in rows.values()}
        if len(rows) < MIN_ROWS or not self._models <= models:
            return
        run.stop_submitting(
            StopReason.MODEL,
            f"{failure.message}; so it was for {len(rows)} rows in succession, and none was accepted: "
            f"check --base-url and the model {', '.join(sorted(models))}",
        )
        # Those failed before the third 404 showed whose fault it is; a run with the right address sends them.
        failed = [one for one in rows.values() if one.state is State.FAILED]
        again = [one.evolve(State.PENDING, failure=None, finished_at=None) for one in failed]
        rows.update((one.key, one) for one in again)  # before others of them get here
        for before, after in zip(failed, again, strict=True):
            run.state.queue(await run.commit(before, after))

    @cached_property
    def _models(self) -> set[str]:
        return {record.model for record in self._run.state.records.values() if record.position >= 0}
