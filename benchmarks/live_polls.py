"""Delay and polls, live: the real command beside fixed clocks and backoff, over real sockets, scaled 1:20.

Delay is from the end of a generation (by the sandbox's own book) to the status request that was told of it.
All times in the results are the vendor's seconds. `python -m benchmarks.live_polls` prints the table.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Final

from benchmarks.live import (
    INTERVAL_S,
    SPEED,
    VeobatchProcess,
    run_client,
    run_server,
    sandbox_options,
    temp_folder,
)
from benchmarks.simulate_polling import DISTRIBUTIONS, optimal_schedule, simulate_fixed_schedule
from benchmarks.simulate_polling import INTERVAL_S as UNSCALED_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ServerStats = dict[str, Any]
Clients = dict[str, dict[str, float]]
Size = tuple[int, int]

SANDBOX_NAMES: Final = {
    "lognormal": "lognormal:75,0.25",
    "two modes": "two-modes",
    "uniform": "uniform:30,300",
}
OTHER_CLOCKS: Final = {
    "fixed 15 s": f"fixed:{15.0 / SPEED}",
    "backoff 1 s x 1.5, cap 30 s": f"backoff:{1.0 / SPEED},1.5,{30.0 / SPEED}",
}
BOUNDS: Final = {"lognormal": 0.52, "two modes": 0.50, "uniform": 0.85}
"""The product of polls and delay, as a share of the fixed clock's, that must not be exceeded."""


def batch_metrics(seen: dict[str, Any]) -> dict[str, float]:
    """Return polls a job, delay and makespan from what a sandbox saw; times in vendor's seconds."""
    rows = seen["generations"]
    delays = [told - created - render for created, render, _, told in rows]
    begun = min(created for created, *_ in rows)
    return {
        "polls": fmean(polls for *_, polls, _ in rows),
        "delay_s": SPEED * fmean(delays),
        "makespan_s": SPEED * (max(told for *_, told in rows) - begun),
    }


def render_durations_s(seen: dict[str, Any]) -> list[float]:
    """Return how long each generation rendered, in vendor's seconds, in the order of their creates."""
    return [SPEED * render for _, render, *_ in seen["generations"]]


def run_veobatch(
    options: str, jobs: int, at_once: int, how: tuple[str, ...] = ()
) -> tuple[dict[str, Any], float]:
    """Run one batch with the real command; return what the sandbox saw, and the CPU it took in seconds."""
    words = ["--concurrency", str(at_once), "--poll-interval", str(INTERVAL_S)]
    with temp_folder() as folder, run_server("live_server", options) as server:
        command = VeobatchProcess(folder, server.url, jobs, *words, modes=how)
        command.wait()
        return server.stats(), command.samples()[-1].cpu_s


def run_naive_client(options: str, jobs: int, at_once: int, clock: str) -> dict[str, Any]:
    """Run one batch with a plain client; return what the sandbox saw."""
    with run_server("live_server", options) as server:
        run_client(server.url, str(jobs), str(at_once), clock)
        return server.stats()


def run_round(names: Sequence[str], size: Size, seed: int, *, others: bool) -> dict[str, Clients]:
    """Run one client after the other on the same durations, each at all distributions at once.

    A live run leaves most of a core idle, so that this takes a third of the time; who runs beside whom is the
    same for every client.
    """
    options = {name: sandbox_options(durations=SANDBOX_NAMES[name], seed=seed) for name in names}

    def run_everywhere(run: Callable[[str], ServerStats]) -> dict[str, ServerStats]:
        with ThreadPoolExecutor() as pool:
            return dict(zip(names, pool.map(run, options.values()), strict=True))

    seen = {
        "fixed 10 s": run_everywhere(lambda words: run_naive_client(words, *size, f"fixed:{INTERVAL_S}")),
        "veobatch": run_everywhere(lambda words: run_veobatch(words, *size)[0]),
    }
    for who, clock in OTHER_CLOCKS.items() if others else ():
        seen[who] = run_everywhere(partial(run_naive_client, clock=clock, jobs=size[0], at_once=size[1]))
    found = {name: {who: batch_metrics(one[name]) for who, one in seen.items()} for name in names}
    for name, clients in found.items():
        clients["optimum (known distribution)"] = optimal_metrics(
            name, render_durations_s(seen["fixed 10 s"][name]), size[1]
        )
        add_shares(clients)
    return found


def optimal_metrics(name: str, taken: list[float], at_once: int) -> dict[str, float]:
    """Return what the best schedule for the known distribution makes of the same durations, by arithmetic."""
    price = (fmean(taken) / UNSCALED_S + 0.5) / (UNSCALED_S / 2.0)
    limit = simulate_fixed_schedule(taken, at_once, optimal_schedule(DISTRIBUTIONS[name], price))
    return {"polls": limit.polls, "delay_s": limit.delay_s, "makespan_s": limit.makespan_s}


def add_shares(found: Clients) -> Clients:
    """Add each client's polls, delay and their product as shares of the fixed clock's."""
    base = found["fixed 10 s"]
    for row in found.values():
        row["polls_share"] = row["polls"] / base["polls"]
        row["delay_share"] = row["delay_s"] / base["delay_s"]
        row["product_share"] = row["polls_share"] * row["delay_share"]
    return found


def run(jobs: int = 300, at_once: int = 60, rounds: int = 1, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return, by distribution and client, the medians over the rounds, and each round's product."""
    names = names or tuple(SANDBOX_NAMES)
    each = [run_round(names, (jobs, at_once), seed, others=seed == 1) for seed in range(1, rounds + 1)]
    results: dict[str, Any] = {}
    for name in names:
        seen = [one[name] for one in each]
        rows = {who: _medians([one[who] for one in seen if who in one]) for who in seen[0]}
        products = [one["veobatch"]["product_share"] for one in seen]
        results[name] = {"clients": rows, "products": products, "bound": BOUNDS[name]}
    return results


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(row[name] for row in rows) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--names", nargs="*", default=[], choices=list(SANDBOX_NAMES))
    args = parser.parse_args()
    print(json.dumps(run(args.jobs, args.at_once, args.rounds, tuple(args.names)), indent=1))


if __name__ == "__main__":
    main()
