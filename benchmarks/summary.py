"""The one table of docs/benchmarks.md: what, against what, the ratio, the command. Measures nothing.

It stands between `<!-- summary -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.report import table
from benchmarks.simulate_polling import INTERVAL_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Found = dict[str, Any]
HEAD: Final = ["what", "against what", "ratio", "beside it", "aim", "command"]


class Figure(NamedTuple):
    """One line: smaller ratios are better. `beside` says how another client fares, or in seconds.

    A `limit` is worse only over its aim: the worst of many moments differs from run to run.
    """

    section: str
    what: str
    against: str
    aim: str
    ratio: Callable[[Found], float]
    beside: Callable[[Found], str]
    limit: bool = False


def _simulated(name: str) -> Figure:
    return Figure(
        "simulated",
        f"makespan, {name}: 240 jobs, 40 in flight",
        "the lower bound (list scheduling)",
        "1.03",
        lambda found: found["makespan"][name]["of_bound"],
        lambda found: (
            f"a poll every 10 s: {found['makespan'][name]['fixed_of_bound']:.3f}, "
            f"the optimum: {found['makespan'][name]['optimum_of_bound']:.3f}"
        ),
    )


def _polls(name: str) -> Figure:
    def clients(found: Found) -> Found:
        result: Found = next(made for key, made in found["clients"].items() if key.startswith(name))
        return result

    return Figure(
        "simulated",
        f"polls x delay, {name}",
        "a poll every 10 s",
        "",
        lambda found: clients(found)["veobatch"]["product_share"],
        lambda found: f"optimum: {clients(found)['optimum (known distribution)']['product_share']:.2f}",
    )


def _last_noticed(found: Found, key: str = "last_delay_s") -> float:
    """Return the mean over the distributions, in poll intervals."""
    rows = found["makespan"].values()
    return fmean(row[key] for row in rows) / INTERVAL_S


ON_REQUEST: Final = frozenset({"makespan", "many", "flight"})
"""Sections that take minutes, or that a busy machine distorts: measured with `--full`, or by name."""

FIGURES: Final = (
    _simulated("lognormal"),
    _simulated("two modes"),
    _simulated("uniform"),
    Figure(
        "simulated",
        "the last end of a batch, noticed after",
        "the poll interval",
        "0.3",
        _last_noticed,
        lambda found: f"a poll every 10 s: {_last_noticed(found, 'fixed_last_delay_s'):.2f}",
        limit=True,
    ),
    _polls("lognormal"),
    _polls("two modes"),
    _polls("uniform"),
    Figure(
        "makespan",
        "makespan, live, 1:20: 240 jobs, 40 in flight",
        "the lower bound (list scheduling)",
        "1.06",
        lambda found: found["veobatch"],
        lambda found: f"gather, a poll every 10 s: {found['naive']:.3f}",
    ),
    Figure(
        "cost",
        "CPU of a poll, 400 in flight, all on",
        "a bare aiohttp request, same pace",
        "1.5",
        lambda found: found["polls"]["cpu_ratios"]["same pace"],
        lambda found: (
            f"{found['resident'][-1]['rss_mb']:.0f} MB with {found['resident'][-1]['jobs']:,} in flight"
        ),
    ),
    Figure(
        "ends",
        "CPU to the first create, 240 rows",
        "importing aiohttp",
        "",
        lambda found: found["start_of_import"],
        lambda found: f"{found['start_cpu_s']:.2f} s of CPU",
    ),
    Figure(
        "ends",
        "CPU from the last clip to the prompt, 240 rows",
        "importing aiohttp",
        "",
        lambda found: found["end_of_import"],
        lambda found: f"{found['end_cpu_s']:.2f} s of CPU",
    ),
    Figure(
        "many",
        "CPU to the first create, 10 new of 100,000 rows",
        "importing aiohttp",
        "",
        lambda found: found["forms"][0]["start_cpu_s"] / found["forms"][0]["import_cpu_s"],
        lambda found: (
            f"{found['forms'][0]['start_cpu_s']:.1f} s of CPU, {found['forms'][0]['start_peak_mb']:.0f} MB"
        ),
    ),
    Figure(
        "flight",
        "CPU of a poll, 100,000 in flight",
        "the same, 1,000 in flight",
        "1.0",
        lambda found: found["flights"][-1]["cpu_us_a_poll"] / found["flights"][0]["cpu_us_a_poll"],
        lambda found: f"{found['flights'][-1]['rss_mb']:.0f} MB",
    ),
    Figure(
        "flight",
        "what people see stands still, 100,000 in flight",
        "5 s",
        "1",
        lambda found: max(gap["median_s"] for gap in found["flights"][-1]["still"].values()) / 5.0,
        lambda found: ", ".join(
            f"{name.split()[-1]} {gap['median_s']:.1f} s"
            for name, gap in found["flights"][-1]["still"].items()
        ),
        limit=True,
    ),
    Figure(
        "again",
        "bytes read by a finished batch, run again",
        "the bytes of its clips",
        "",
        lambda found: found["read_bytes"] / (found["clips"] * found["clip_bytes"]),
        lambda found: (
            f"{found['clips']:,} clips, {found['opened']} opened, {found['cpu_seconds']:.1f} s of CPU"
        ),
    ),
    Figure(
        "ledger",
        "a run of fast jobs, every step on the disk",
        "the same, not waiting for the disk",
        "1.10",
        lambda found: found["slowed"]["ratio"],
        lambda found: f"{found['throughput'][-1]['steps_per_s']:,.0f} steps/s, 64 callers",
    ),
    Figure(
        "downloads",
        "download, checks, sync: 60 x 16 MiB, 8 at once",
        "curl, bytes only",
        "1.4",
        lambda found: _of_curl(found, "ours, asyncio"),
        lambda found: f"without the media check: {_of_curl(found, 'ours, no media check, asyncio'):.2f}",
    ),
    Figure(
        "downloads",
        "longest callback of the loop meanwhile, CPU time",
        "20 ms",
        "1",
        lambda found: found["loops"]["asyncio"]["ours"]["loop_callback_cpu_ms"] / 20.0,
        lambda found: f"by the clock: {found['loops']['asyncio']['ours']['loop_callback_ms']:.0f} ms",
        limit=True,
    ),
)


PAGE_SECTIONS: Final = tuple(dict.fromkeys(one.section for one in FIGURES if one.section not in ON_REQUEST))
"""What is measured unless something else is asked for, in order."""


def _of_curl(found: Found, way: str) -> float:
    ways = found["loops"]["asyncio"]
    name = way.removesuffix(", asyncio")
    return float(ways[name]["seconds"] / ways["curl"]["seconds"])


def ratios(results: Mapping[str, Any]) -> Iterator[tuple[Figure, float]]:
    """Yield each figure whose section was measured, with its ratio."""
    for figure in FIGURES:
        if figure.section in results:
            yield figure, figure.ratio(results[figure.section]["found"])


def render_summary(results: Mapping[str, Any]) -> str:
    """Return the table of everything that was measured, with the days and the machine."""
    rows = [
        [
            figure.what,
            figure.against,
            f"{ratio:.3f}",
            figure.beside(results[figure.section]["found"]),
            figure.aim,
            f"`--only {figure.section}`",
        ]
        for figure, ratio in ratios(results)
    ]
    measured = [results[name] for name in {figure.section: None for figure, _ in ratios(results)}]
    days = sorted({one["date"] for one in measured})
    how = f"Measured on {' and '.join(days)} ({measured[0]['machine']}; commit {measured[0]['commit']})."
    took = sum(one["took_s"] for one in measured)
    return f"{table(HEAD, rows)}\n\n{how} All of it took {took:.0f} s."


def update_page(page: str, results: Mapping[str, Any]) -> str:
    """Return the page with its table made anew; the rest stays as it is."""
    summary = f"<!-- summary -->\n\n{render_summary(results)}\n\n<!-- end -->"
    return re.sub(r"<!-- summary -->.*?<!-- end -->", lambda _: summary, page, flags=re.DOTALL)
