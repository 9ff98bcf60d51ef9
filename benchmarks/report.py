"""Results as tables of Markdown, which a terminal shows as well as a page does. Measures nothing.

`docs/benchmarks.md` has the ratios alone, see `summary`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Measurements = dict[str, Any]
Cells = list[list[str]]

NOT_MEASURED: Final = "Not measured yet."


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns line up; all but the first are set to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
        return "| " + " | ".join(padded) + " |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), "| " + " | ".join(rule) + " |", *(line(row) for row in rows)])


def is_kept(measured: float, bound: float) -> str:
    """Say whether what was measured keeps to its upper bound."""
    return "yes" if measured <= bound else "NO"


def polls_live(found: Measurements) -> str:
    head = ["live, scaled 1:20", "polls a job", "delay s", "polls", "delay", "product", "bound", "kept"]
    rows: Cells = []
    for name, one in found.items():
        for who, row in one["clients"].items():
            ours = who == "veobatch"
            kept = is_kept(
                max(row["product_share"] / one["bound"], row["polls_share"], row["delay_share"]), 1.0
            )
            shares = [f"{row[key]:.2f}" for key in ("polls_share", "delay_share", "product_share")]
            promise = [f"{one['bound']:.2f}", kept] if ours else ["", ""]
            rows.append([f"{name}: {who}", f"{row['polls']:.1f}", f"{row['delay_s']:.1f}", *shares, *promise])
    return table(head, rows)


def polls_simulated(found: Measurements) -> str:
    head = ["simulated", "polls a job", "delay s", "polls", "delay", "product", "worst seed"]
    keys = ("polls_share", "delay_share", "product_share", "product_share_worst")
    rows = [
        [f"{name.partition(',')[0]}: {who}", f"{row['polls']:.1f}", f"{row['delay_s']:.1f}"]
        + [f"{row[key]:.2f}" for key in keys]
        for name, clients in found["clients"].items()
        for who, row in clients.items()
    ]
    return f"{table(head, rows)}\n\n{makespan_simulated(found['makespan'])}"


def makespan(found: Measurements) -> str:
    jobs = f"{found['jobs']} jobs, {found['at_once']} in flight"
    rows = [
        [f"{jobs}: lower bound (list scheduling)", f"{found['bound_s']:.0f}", "1.000", "", ""],
        _makespan_row("veobatch", found, f"{found['bound']:.2f}", is_kept(found["veobatch"], found["bound"])),
        _makespan_row("naive", found, "", "", "gather with a semaphore, fixed 10 s"),
        _makespan_row("sample_loop", found, "", "", "the vendor's sample: one at a time, 15 s (arithmetic)"),
    ]
    return table(["makespan", "s", "of the bound", "bound", "kept"], rows)


def makespan_simulated(found: Measurements) -> str:
    head = [
        "virtual clock, 240 jobs, 40 in flight",
        "of the bound",
        "fixed 10 s",
        "polls a job",
        "fixed 10 s",
    ]
    keys = ("of_bound", "fixed_of_bound", "polls", "fixed_polls", "last_delay_s")
    formats = (".3f", ".3f", ".2f", ".2f", ".1f")
    rows = [
        [name, *(f"{row[key]:{form}}" for key, form in zip(keys, formats, strict=True))]
        for name, row in found.items()
    ]
    return table([*head, "last noticed after, s"], rows)


def _makespan_row(name: str, found: Measurements, bound: str, kept: str, words: str = "") -> list[str]:
    return [words or name, f"{found[name] * found['bound_s']:.0f}", f"{found[name]:.3f}", bound, kept]


def limit(found: Measurements) -> str:
    live, simulated = found["live"], found["simulated"]
    used, refused = live["bounds"]["used"], live["bounds"]["refused_a_job"]
    mine, naive = live["clients"]["veobatch"], live["clients"]["naive"]
    kept = "yes" if mine["used"] >= used and mine["refused_a_job"] < refused else "NO"
    rows = [
        _limit_row(f"live, {live['limit']} in flight: veobatch", mine, [f">= {used:.0%}, < {refused}", kept]),
        _limit_row(f"live, {live['limit']} in flight: naive, tries again after 10 s", naive, ["", ""]),
    ]
    rows += [_limit_row(f"simulated, {name}", row, ["", ""]) for name, row in simulated.items()]
    return table(
        ["hidden limit, --concurrency 40", "used once found", "refused a job", "bounds", "kept"], rows
    )


def _limit_row(name: str, row: Mapping[str, float | None], promise: list[str]) -> list[str]:
    used = row["used"]
    return [name, "" if used is None else f"{used:.0%}", f"{row['refused_a_job'] or 0.0:.2f}", *promise]


def cost(found: Measurements) -> str:
    rows = [
        [who, f"{row['requests_per_s']:,.0f}", f"{row['cpu_us']:.0f}"]
        for who, row in found["polls"]["rows"].items()
    ]
    bounds = found["bounds"]
    promises: Cells = []

    def promise(what: str, measured: float, bound: float | None = None, places: int = 0) -> None:
        kept = ["", ""] if bound is None else [f"{bound:,}", is_kept(measured, bound)]
        promises.append([what, f"{measured:,.{places}f}", *kept])

    for pace, ratio in found["polls"]["cpu_ratios"].items():
        promise(f"CPU a poll, as a multiple of a bare request, {pace}", ratio, bounds["cpu_ratio"], 2)
    for size, each in found["bytes"].items():
        promise(f"bytes to track each of {int(size):,}", each["queue_and_board"], bounds["bytes"])
        promise("... and with its row: prompt, URL, body, ids", each["with_record"])
    for each in found["resident"]:
        promise(f"peak resident set with {each['jobs']:,} in flight, MB", each["rss_mb"], bounds["rss_mb"])
    first = table(["polls at 400 in flight", "requests/s", "CPU us each"], rows)
    return f"{first}\n\n{table(['cost', 'measured', 'bound', 'kept'], promises)}"


def night(found: Measurements) -> str:
    head = [
        "jobs",
        "in flight",
        "polls a job",
        "delay s",
        "refused a job",
        "CPU s",
        "CPU us a job",
        "peak MB",
    ]
    rows = [
        [
            f"{row['jobs']:,}",
            f"{row['in_flight']:,}",
            f"{row['looks_a_job']:.2f}",
            f"{row['delay_s']:.1f}",
            f"{row['refused_creates_a_job']:.3f}",
            f"{row['cpu_s']:.1f}",
            f"{row['cpu_us_a_job']:.0f}",
            f"{row['peak_rss_mb']:.0f}",
        ]
        for row in found["nights"]
    ]
    return table(head, rows)


def ledger(found: Measurements) -> str:
    slow = found["slowed"]
    jobs = f"{slow['jobs']:,} fast jobs"
    first = table(
        ["the real command", "s", "ratio", "bound", "kept"],
        [
            [
                f"{jobs}, every step on the disk",
                f"{slow['durable_s']:.2f}",
                f"{slow['ratio']:.2f}",
                f"{slow['bound']:.2f}",
                is_kept(slow["ratio"], slow["bound"]),
            ],
            [f"{jobs}, synchronous = OFF", f"{slow['unsynced_s']:.2f}", "1.00", "", ""],
        ],
    )
    rows = [
        [row["name"], f"{row['steps_per_s']:,.0f}", f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}"]
        for row in found["throughput"]
    ]
    return f"{first}\n\n{table(['the ledger alone', 'durable steps/s', 'median ms', 'p99 ms'], rows)}"


def downloads(found: Measurements) -> str:
    rows = [
        [
            f"{way}, {loop}" if way.startswith("ours") else f"{way} (beside {loop})",
            f"{row['seconds']:.2f}",
            f"{row['mb_s']:,.0f}",
            f"{row['seconds'] / ways['curl']['seconds']:.2f}" if "curl" in ways else "",
        ]
        for loop, ways in found["loops"].items()
        for way, row in ways.items()
    ]
    return table([f"{found['files']} files of {found['mib']} MiB", "s", "MB/s", "of curl's time"], rows)


def ends(found: Measurements) -> str:
    rows = [
        [name, f"{found[f'{key}_s']:.2f}", f"{found[f'{key}_cpu_s']:.2f}", f"{found[f'{key}_of_import']:.2f}"]
        for name, key in (("command to first create", "start"), ("last clip to prompt", "end"))
    ]
    return table([f"{found['jobs']} rows", "s", "CPU s", "of importing aiohttp"], rows)


def many(found: Measurements) -> str:
    rows = [
        [f"{one['form']}: {one['new']:,} new of {one['rows']:,} rows"]
        + [f"{one[name]:.2f}" for name in ("start_s", "start_cpu_s", "end_s", "end_cpu_s")]
        + [f"{one[name]:.0f}" for name in ("start_peak_mb", "end_peak_mb")]
        for one in found["forms"]
    ]
    head = ["to the first create, and from the last clip", "s", "CPU s", "end s", "CPU s", "MB", "end MB"]
    return table(head, rows)


def flight(found: Measurements) -> str:
    names = ("cpu_us_a_poll", "polls_per_s", "rss_mb", "peak_mb")
    rows = [[f"{one['rows']:,}", *(f"{one[name]:.1f}" for name in names)] for one in found["flights"]]
    shown = list(found["flights"][0]["still"])
    still = [
        [name, *(f"{gap['median_s']:.1f} ({gap['max_s']:.1f})" for gap in gaps)]
        for name, *gaps in zip(
            shown, *([one["still"][name] for name in shown] for one in found["flights"]), strict=True
        )
    ]
    head = ["stood still for, s (at most)", *(f"{one['rows']:,} in flight" for one in found["flights"])]
    costs = table(["in flight", "CPU us a poll", "polls/s", "MB", "peak MB"], rows)
    return f"{costs}\n\n{table(head, still)}"


def again(found: Measurements) -> str:
    row = [
        f"{found['clips']:,}",
        str(found["opened"]),
        f"{found['seconds']:.2f}",
        f"{found['cpu_seconds']:.2f}",
    ]
    return table(["clips of a finished batch", "opened", "s", "CPU s"], [row])


TABLES: Final[dict[str, Callable[[Measurements], str]]] = {
    "polls": polls_live,
    "simulated": polls_simulated,
    "makespan": makespan,
    "limit": limit,
    "cost": cost,
    "ends": ends,
    "many": many,
    "flight": flight,
    "again": again,
    "night": night,
    "ledger": ledger,
    "downloads": downloads,
}


def render_section(name: str, results: Mapping[str, Any]) -> str:
    """Return a section's tables, with the date and the command that makes them again."""
    if name not in results:
        return NOT_MEASURED
    one = results[name]
    how = f"Measured on {one['date']} by `{one['command']}` ({one['took_s']:.0f} s; {one['machine']})."
    return f"{TABLES[name](one['found'])}\n\n{how}"
