"""Finding what an account allows, on a virtual clock: the real `CreateGate` against hidden limits.

Run as `python -m benchmarks.simulate_limit`; `run()` gives the same as data that JSON can hold.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import exp, inf
from random import Random
from typing import TYPE_CHECKING, Any, Final

from pipeline.submit.create_limits import AdaptiveConcurrencyLimit

if TYPE_CHECKING:
    from collections.abc import Callable


def unlimited(now: float) -> float:
    """No limit at any time."""
    return inf


@dataclass(slots=True)
class VendorAccount:
    """A vendor with hidden limits: generations in flight (over time), and a bucket of creates a second."""

    in_flight: Callable[[float], float] = unlimited
    rate: float = inf
    burst: float = 5.0
    retry_after: bool = False
    running: list[float] = field(default_factory=list)
    tokens: float = 0.0
    advanced_to: float = 0.0
    used_s: float = 0.0
    available_s: float = 0.0

    def create(self, now: float, duration_s: float) -> tuple[bool, float | None]:
        """Take a create or refuse it, with the seconds after which to come again if it says so."""
        self.advance(now)
        if len(self.running) >= self.in_flight(now):
            return False, (min(self.running) - now if self.retry_after and self.running else None)
        if self.rate < inf and self.tokens < 1.0:
            return False, ((1.0 - self.tokens) / self.rate if self.retry_after else None)
        self.tokens -= 1.0
        heappush(self.running, now + duration_s)
        return True, None

    def advance(self, now: float) -> None:
        """Let time pass: generations end, tokens gather, use of the limit is measured."""
        while self.running and self.running[0] <= now:
            self._advance_to(self.running[0])
            heappop(self.running)
        self._advance_to(now)

    def _advance_to(self, now: float) -> None:
        span = max(0.0, now - self.advanced_to)
        if self.rate < inf:
            self.tokens = min(self.burst, self.tokens + span * self.rate)
        limit = self.in_flight(now)
        if limit < inf:
            self.used_s += span * min(len(self.running), limit)
            self.available_s += span * limit
        self.advanced_to = max(self.advanced_to, now)


def simulate(
    account: VendorAccount,
    *,
    jobs: int = 240,
    ceiling: int = 40,
    interval_s: float = 10.0,
    median_s: float = 75.0,
    latency_s: float = 0.4,
    notice_s: float = 3.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Run one batch; an end is noticed after up to twice `notice_s`, a create is answered after `latency_s`.

    `used` is the share of the hidden limit that ran while there were jobs left to start.
    """
    random = Random(seed)
    gate = AdaptiveConcurrencyLimit(ceiling, interval_s=interval_s, random=Random(seed + 1))
    account.tokens = account.burst
    events: list[tuple[float, int, str, float | None]] = []
    now, pending, in_flight, refused, done, consecutive_rejections, max_consecutive_rejections, serial = (
        0.0,
        jobs,
        0,
        0,
        0,
        0,
        0,
        0,
    )
    use: tuple[float, float] | None = None
    limits: list[tuple[float, int]] = []
    while done < jobs:
        wait = gate.start_delay_s(now, in_flight) if pending else inf
        while pending and wait <= 0.0:
            gate.on_started(now)
            pending -= 1
            duration = median_s * exp(random.gauss(0.0, 0.25))
            accepted, again = account.create(now, duration)
            serial += 1
            heappush(events, (now + latency_s, serial, "yes" if accepted else "no", again))
            if accepted:
                noticed = now + max(duration, latency_s) + 2.0 * notice_s * random.random()
                heappush(events, (noticed, serial, "end", None))
            wait = gate.start_delay_s(now, in_flight)
        if pending == 0 and use is None:
            account.advance(now)
            use = (account.used_s, account.available_s)
        if wait < inf and (not events or now + wait < events[0][0]):
            now += wait
            continue
        now, _, what, again = heappop(events)
        if what == "yes":
            in_flight += 1
            consecutive_rejections = 0
            gate.on_accepted(now, in_flight)
        elif what == "no":
            refused += 1
            consecutive_rejections += 1
            max_consecutive_rejections = max(max_consecutive_rejections, consecutive_rejections)
            pending += 1
            use = None
            gate.on_rate_limited(now, in_flight, again)
        else:
            in_flight -= 1
            done += 1
        if not limits or limits[-1][1] != gate.limit:
            limits.append((round(now, 1), gate.limit))
    used, given = use or (0.0, 0.0)
    return {
        "makespan_s": now,
        "refused_a_job": refused / jobs,
        "used": used / given if given else None,
        "most_refused_in_a_row": max_consecutive_rejections,
        "last_limit": limits[-1][1],
    }


SETTINGS: Final[dict[str, Callable[[], VendorAccount]]] = {
    "12 in flight": lambda: VendorAccount(in_flight=lambda now: 12.0),
    "12 in flight, Retry-After": lambda: VendorAccount(in_flight=lambda now: 12.0, retry_after=True),
    "12, then 30 after 300 s": lambda: VendorAccount(in_flight=lambda now: 12.0 if now < 300.0 else 30.0),
    "30, then 12 after 120 s": lambda: VendorAccount(in_flight=lambda now: 30.0 if now < 120.0 else 12.0),
    "1 in flight": lambda: VendorAccount(in_flight=lambda now: 1.0),
    "2 creates a second": lambda: VendorAccount(rate=2.0),
    "2 creates a second, Retry-After": lambda: VendorAccount(rate=2.0, retry_after=True),
    "1 create in 5 s": lambda: VendorAccount(rate=0.2, burst=1.0),
    "10 a minute, 10 at once": lambda: VendorAccount(rate=1.0 / 6.0, burst=10.0),
    "25 in flight, 1 a second": lambda: VendorAccount(in_flight=lambda now: 25.0, rate=1.0),
    "no limit": VendorAccount,
}


def run(jobs: int = 240, seeds: int = 5) -> dict[str, Any]:
    """Return, by hidden limit, how well it was used and how many creates were refused."""
    rows: dict[str, Any] = {}
    for name, account in SETTINGS.items():
        seen = [simulate(account(), jobs=jobs, seed=seed) for seed in range(seeds)]
        rows[name] = {key: _mean([one[key] for one in seen]) for key in seen[0]}
    return rows


def _mean(values: list[Any]) -> float | None:
    return None if None in values else sum(values) / len(values)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=240)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{'hidden limit':34} used  refused/job  in a row  makespan s  last limit")
    for name, row in run(arguments.jobs, arguments.seeds).items():
        used = "   -" if row["used"] is None else f"{row['used']:4.0%}"
        print(
            f"{name:34} {used} {row['refused_a_job']:12.3f} {row['most_refused_in_a_row']:9.1f} "
            f"{row['makespan_s']:11.0f} {row['last_limit']:11.1f}"
        )


if __name__ == "__main__":
    main()
