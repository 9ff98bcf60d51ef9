"""`python -m benchmarks`: measure everything, print the tables, write `benchmarks/results.json` and a plot.

    python -m benchmarks                    what the page has, in six minutes; more rounds: --rounds 3
    python -m benchmarks --only polls cost  some of it; what was measured before is kept
    python -m benchmarks --only many flight 100,000 rows of which 10 are new; 100,000 in flight at once
    python -m benchmarks --full             those, polls, a hidden limit, a night of a million jobs, uvloop
    python -m benchmarks --docs             and renew the table in docs/benchmarks.md
    python -m benchmarks --show             print what was measured last, measure nothing
    python -m benchmarks --check            and fail when a ratio is worse than the page's

Everything is measured beside what it is compared with, in turns, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from benchmarks import (
    finished_batch,
    ledger,
    live_cost,
    live_downloads,
    live_ends,
    live_in_flight,
    live_ledger,
    live_limit,
    live_makespan,
    live_many,
    live_polls,
    simulate_limit,
    simulate_polling,
)
from benchmarks.check import worse_than_page
from benchmarks.live import HERE, temp_folder
from benchmarks.report import TABLES, render_section
from benchmarks.report_plot import draw
from benchmarks.summary import PAGE_SECTIONS, render_summary, update_page

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS: Final = HERE / "results.json"
MIB: Final = 2**20
PLOT: Final = HERE / "plot.svg"
DOCS_PAGE: Final = HERE.parent / "docs" / "benchmarks.md"
NIGHT_SCRIPT: Final = """
import json, sys
from benchmarks.live_child import peak_mb
from benchmarks.simulate_night import measure
print(json.dumps({**measure(int(sys.argv[1])), "peak_rss_mb": peak_mb()}))
"""


def measure_simulated(seeds: int) -> dict[str, Any]:
    """Polls, delay and makespan on a virtual clock."""
    clients = simulate_polling.run(jobs=1_000, in_flight=(60,), seeds=seeds)
    return {"clients": clients, "makespan": simulate_polling.measure_makespan()}


def measure_limit(rounds: int) -> dict[str, Any]:
    """The hidden limit, live and on a virtual clock."""
    return {"live": live_limit.run(rounds=rounds), "simulated": simulate_limit.run(seeds=5)}


def measure_night(*, full: bool) -> dict[str, Any]:
    """Nights of growing size, each in a process of its own, so that its memory is its own."""
    sizes = [1_000, 10_000, 100_000, *([1_000_000] if full else [])]
    nights = []
    for size in sizes:
        words = [sys.executable, "-c", NIGHT_SCRIPT, str(size)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, cwd=HERE.parent, check=True)
        nights.append(json.loads(done.stdout))
    return {"nights": nights}


def measure_again(clips: int) -> dict[str, Any]:
    """What a finished batch costs when it is run again."""
    with temp_folder() as folder:
        asyncio.run(finished_batch.build(folder, clips, MIB))
        return {"clips": clips, "clip_bytes": MIB, **finished_batch.measure(folder)}


def measure_ledger(jobs: int, rounds: int) -> dict[str, Any]:
    """What durability costs a run, and what the ledger does by itself."""
    with temp_folder() as folder:
        ways = [("one caller", 1, 300, 4096), ("64 callers, a commit each", 64, 300, 1)]
        ways.append(("64 callers, grouped", 64, 20_000, 4096))
        alone = [asyncio.run(ledger.throughput(str(folder / "ledger.sqlite3"), *way)) for way in ways]
    return {"slowed": live_ledger.run(jobs, rounds), "throughput": [asdict(one) for one in alone]}


def sections(rounds: int, *, full: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what there is to measure, by name, in order."""
    flights = (300, 3_000, 10_000) if full else (3_000,)
    return {
        "polls": lambda: live_polls.run(rounds=rounds),
        "simulated": lambda: measure_simulated(seeds=10 if full else 2),
        "makespan": lambda: live_makespan.run(rounds=rounds),
        "limit": lambda: measure_limit(rounds),
        "cost": lambda: live_cost.run(rounds=3 if full else rounds, flights=flights, full=full),
        "ends": lambda: live_ends.run(rounds=max(3, rounds)),
        "many": lambda: {"forms": [live_many.measure(form, 100_000, 10) for form in live_many.FORMS]},
        "flight": lambda: {"flights": [live_in_flight.measure(rows, 20.0) for rows in (1_000, 100_000)]},
        "again": lambda: measure_again(10_000),
        "night": lambda: measure_night(full=full),
        "ledger": lambda: measure_ledger(3_000 if full else 1_000, max(3, rounds)),
        "downloads": lambda: live_downloads.run(rounds=max(3, rounds), uvloop=full),
    }


def measure(name: str, run: Callable[[], dict[str, Any]], command: str) -> dict[str, Any]:
    """Run one section; return what it found, and when, how and where."""
    began = time.monotonic()
    found = run()
    system = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"
    if hasattr(os, "getloadavg"):
        system += f", load average {os.getloadavg()[0]:.0f}"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "took_s": time.monotonic() - began,
        "machine": system,
        "commit": _commit(),
        "found": found,
    }


def _commit() -> str:
    words = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write(results: dict[str, Any], *, docs: bool) -> None:
    """Keep the results, draw the polls, and renew the page when asked to."""
    RESULTS.write_text(json.dumps(results, indent=1))
    if "polls" in results:
        draw(results, PLOT)
    if docs:
        DOCS_PAGE.write_text(update_page(DOCS_PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(TABLES), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=1, help="live runs of each kind; medians are kept")
    parser.add_argument("--full", action="store_true", help="all sections, more seeds, larger sizes")
    parser.add_argument("--docs", action="store_true", help="renew docs/benchmarks.md")
    parser.add_argument("--show", action="store_true", help="measure nothing, show what was measured last")
    parser.add_argument("--check", action="store_true", help="fail when a ratio is worse than the page's")
    args = parser.parse_args()
    if args.only is None:
        args.only = list(TABLES) if args.full else list(PAGE_SECTIONS)
    return args


def main() -> None:
    """Measure what is asked for."""
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and clients are ended too
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    section_runs = sections(args.rounds, full=args.full)
    for name in args.only:
        if not args.show:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            flags = [f"--rounds {args.rounds}"] * (args.rounds > 1) + ["--full"] * args.full
            command = " ".join(["python -m benchmarks --only", name, *flags])
            results[name] = measure(name, section_runs[name], command)
            write(results, docs=False)
        print(f"\n{render_section(name, results)}\n", flush=True)
    print(f"\n{render_summary(results)}\n", flush=True)
    if args.check:
        measured = {name: results[name] for name in args.only if name in results}
        if worse := worse_than_page(DOCS_PAGE.read_text(encoding="utf-8"), measured):
            sys.exit("worse than docs/benchmarks.md:\n" + "\n".join(worse))
    if args.docs:
        write(results, docs=True)


if __name__ == "__main__":
    main()
