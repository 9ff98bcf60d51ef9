"""What a run left: typed rows, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, overload

from pipeline.results.csv_rows import visible_records
from pipeline.results.rows import ROW_FIELDS, Row, row_of

if TYPE_CHECKING:
    from pipeline.batch.paths import BatchPaths
    from pipeline.model import Record
    from pipeline.runner.summary import RunSummary


class Results(Sequence[Row]):
    """The rows of a batch in the manifest's order, then those that left it after they were paid for.

    `summary` is the object that `veobatch run --json` prints, empty while no run has ended.
    """

    def __init__(self, rows: Sequence[Row], summary: dict[str, Any] | None = None) -> None:
        self._rows = tuple(rows)
        self.summary = summary or {}

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        counts = self.summary.get("counts") or {}
        text = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        return f"<Results: {text or f'{len(self)} rows'}>"

    @property
    def ok(self) -> bool:
        """Return whether every row is done."""
        return all(row.status == "done" for row in self._rows)

    @property
    def exit_code(self) -> int | None:
        """The exit code that the command would end with, None while no run has ended."""
        return self.summary.get("exit_code")

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with the columns of `results.csv`. Raises `ImportError` without it."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_pandas() needs pandas: pip install pandas") from error
        return pd.DataFrame([asdict(row) for row in self._rows], columns=list(ROW_FIELDS))


def results_of(
    records: Sequence[Record], paths: BatchPaths, *, sandbox: bool, summary: RunSummary | None = None
) -> Results:
    """Return the visible rows of `records`, with paths and URLs that can be opened from here."""
    rows = [row_of(record, paths.output_path, sandbox=sandbox) for record in visible_records(records)]
    return Results(rows, summary.to_json() if summary is not None else None)
