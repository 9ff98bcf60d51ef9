"""Is a fresh measurement worse than docs/benchmarks.md says, by more than its own noise?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from benchmarks.summary import ratios

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MIN_NOISE: Final = 0.1
"""What one round alone cannot show: two neighbours of one kind differ by so much on a quiet machine."""

_ROUND_RATIOS: Final = {"makespan": "veobatch", "ends": "start_of_import"}
"""The ratio that each round of a section has by itself."""


def worse_than_page(page: str, results: Mapping[str, Any]) -> list[str]:
    """Return a line for each ratio of `results` that is worse than the page's by more than the noise."""
    found = []
    for figure, now in ratios(results):
        before = cell(page, figure.what, "ratio")
        noise = max(MIN_NOISE, relative_spread(_rounds(figure.section, results[figure.section]["found"])))
        allowed = float(figure.aim) if figure.limit else (before or 0.0) * (1.0 + noise)
        if before is not None and now > allowed:
            found.append(f"{figure.what}: {now:.3f}, the page has {before:g} (noise {noise:.0%})")
    return found


def cell(text: str, row: str, column: str) -> float | None:
    """Return the number in a Markdown table's cell; None when there is no such cell, or no number in it."""
    for table in re.split(r"\n\s*\n", text):
        lines = list(_table_rows(table))
        if lines and column in lines[0]:
            at = lines[0].index(column)
            for cells in lines[1:]:
                if cells[0] == row and re.fullmatch(r"[\d.]+", cells[at]):
                    return float(cells[at])
    return None


def relative_spread(values: Sequence[float]) -> float:
    """Return half the range of the rounds as a share of their mean: what a single one may be off by."""
    if len(values) < 2:
        return 0.0
    return (max(values) - min(values)) / 2.0 / (sum(values) / len(values))


def _rounds(section: str, found: Mapping[str, Any]) -> list[float]:
    if "slowed" in found:
        return list(found["slowed"]["ratios"])
    return [one[_ROUND_RATIOS[section]] for one in found.get("rounds", ()) if section in _ROUND_RATIOS]


def _table_rows(table: str) -> Iterator[list[str]]:
    for line in table.splitlines():
        if line.startswith("|"):
            yield [part.strip() for part in line.strip("|").split("|")]
