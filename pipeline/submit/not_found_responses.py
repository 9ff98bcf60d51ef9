"""Rows whose creates are answered with 404: the fault of an address or a model, when no row fares better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import Conflict, StopReason
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
        self._of_another_model = ""

    def on_accepted(self) -> None:
        """Forget them: the address is right."""
        self._rows.clear()
        self._run.state.may_come_back.clear()

    async def on_not_found(self, record: Record, failure: Failure) -> None:
        """Stop where every row is answered with 404: an address or a model that is gone fails no row.

        Rows of another model, if there are any left to try, go on.
        """
        run, rows = self._run, self._rows
        rows[record.key] = record
        run.state.may_come_back.add(record.key)
        models = {one.model for one in rows.values()}
        if run.state.stop_reason is not StopReason.MODEL:
            if len(rows) < MIN_ROWS or self._others_left(models):
                return
            run.stop_submitting(
                StopReason.MODEL,
                f"{failure.message}; so it was for {len(rows)} rows in succession, and none was accepted: "
                f"check --base-url and the model {', '.join(sorted(models))}",
            )
        await self.put_back()

    async def put_back(self) -> None:
        """Put back what failed before it showed whose fault it is: a run with the right address sends it."""
        run, rows = self._run, self._rows
        failed = [one for one in rows.values() if one.state is State.FAILED]
        again = [one.evolve(State.PENDING, failure=None, finished_at=None) for one in failed]
        rows.update((one.key, one) for one in again)  # before others of them get here
        for before, after in zip(failed, again, strict=True):
            try:
                run.state.queue(await run.commit(before, after))
            except Conflict:
                run.leave_to_other_process(before.key)

    def _others_left(self, models: set[str]) -> bool:
        """Return whether rows of other models than these are left to try, or are being tried."""
        records = self._run.state.records
        # Not all rows for each 404: the one that was found before stays so for long.
        if self._is_left(records.get(self._of_another_model), models):
            return True
        found = (key for key in reversed(records) if self._is_left(records[key], models))
        self._of_another_model = next(found, "")
        return self._of_another_model != ""

    def _is_left(self, record: Record | None, models: set[str]) -> bool:
        """Return whether a row is none of these models', and this run may still have it accepted."""
        state = self._run.state
        return (
            record is not None
            and record.state is State.PENDING
            and record.model not in models
            and state.may_submit(record)
            and record.key not in state.unfinished
        )
