"""Is a fresh measurement worse than docs/benchmarks.md says, by more than its own noise?

Both are read from the same tables, so that whatever the page shows can be checked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from benchmarks.report import render_section

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CHECKED: Final = (
    ("polls", "lognormal: veobatch", "product"),
    ("polls", "two modes: veobatch", "product"),
    ("polls", "uniform: veobatch", "product"),
    ("makespan", "veobatch", "of the bound"),
    ("simulated", "lognormal", "of the bound"),
    ("simulated", "two modes", "of the bound"),
    ("simulated", "uniform", "of the bound"),
    ("cost", "CPU a poll, as a multiple of a bare request, same pace", "measured"),
    ("ledger", "3,000 fast jobs, every step on the disk", "ratio"),
    ("downloads", "ours, asyncio", "of curl's time"),
)
"""Section, row and column of each ratio; smaller is better for all of them."""

MIN_NOISE: Final = 0.05
"""Rounding, and what one round alone cannot show."""


def worse_than_page(page: str, results: Mapping[str, Any]) -> list[str]:
    """Return a line for each ratio of `results` that is worse than the page's by more than the noise."""
    found = []
    for section, row, column in CHECKED:
        if section not in results:
            continue
        before = cell(_page_section(page, section), row, column)
        now = cell(render_section(section, results), row, column)
        noise = max(MIN_NOISE, relative_spread(_rounds(results[section]["found"])))
        if before is not None and now is not None and now > before * (1.0 + noise):
            found.append(
                f"{section}: {row}: {column} is {now:g}, the page has {before:g} (noise {noise:.0%})"
            )
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


def _rounds(found: Mapping[str, Any]) -> list[float]:
    if "slowed" in found:
        return list(found["slowed"]["ratios"])
    return [one["veobatch"] for one in found.get("rounds", ())]


def _page_section(page: str, section: str) -> str:
    match = re.search(rf"<!-- {section} -->(.*?)<!-- end -->", page, re.DOTALL)
    return match[1] if match else ""


def _table_rows(table: str) -> Iterator[list[str]]:
    for line in table.splitlines():
        if line.startswith("|"):
            yield [part.strip() for part in line.strip("|").split("|")]
