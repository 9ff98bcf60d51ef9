"""The arithmetic under the benchmarks; nothing here is timed."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import (
    check,
    clients,
    live_cadence,
    live_limit,
    live_makespan,
    live_polls,
    pictures,
    report,
    simulate_polling,
    summary,
)
from benchmarks.live import SPEED


@pytest.mark.parametrize(
    ("taken", "slots", "makespan"),
    [
        ([3.0], 5, 3.0),
        ([3.0, 2.0, 1.0], 1, 6.0),
        ([3.0, 2.0, 2.0, 1.0], 2, 4.0),
        ([4.0, 1.0, 1.0, 1.0, 5.0], 2, 8.0),
    ],
)
def test_list_scheduling_gives_each_job_the_slot_that_is_free_first(
    taken: list[float], slots: int, makespan: float
) -> None:
    assert simulate_polling.list_scheduling_makespan(taken, slots) == makespan


def test_sample_loop_notices_each_job_at_its_next_poll() -> None:
    assert live_makespan.sample_loop_makespan([10.0, 15.0, 15.1], 15.0) == 15.0 + 15.0 + 30.0


def test_use_of_a_limit_counts_what_ran_between_its_discovery_and_the_last_create() -> None:
    generations = [[0.0, 10.0], [0.0, 4.0], [6.0, 10.0]]
    assert live_limit.limit_used(generations, 2, 0.0) == pytest.approx((6.0 + 4.0) / (2 * 6.0))
    assert live_limit.limit_used(generations, 2, 5.0) == pytest.approx(1.0 / 2.0)
    assert live_limit.limit_used(generations, 2, 6.0) == 0.0


def test_an_outcome_is_in_the_vendors_seconds() -> None:
    seen: dict[str, Any] = {"generations": [[100.0, 2.0, 4, 102.1], [100.0, 3.0, 6, 103.3]]}
    assert live_polls.batch_metrics(seen) == pytest.approx(
        {"polls": 5.0, "delay_s": SPEED * 0.2, "makespan_s": SPEED * 3.3}
    )
    assert live_polls.render_durations_s(seen) == [2.0 * SPEED, 3.0 * SPEED]


def test_shares_are_of_the_fixed_clock() -> None:
    found = live_polls.add_shares(
        {"fixed 10 s": {"polls": 8.0, "delay_s": 5.0}, "veobatch": {"polls": 6.0, "delay_s": 2.0}}
    )
    assert found["veobatch"]["product_share"] == pytest.approx(0.75 * 0.4)
    assert found["fixed 10 s"]["product_share"] == 1.0


def test_clocks_are_what_their_names_say() -> None:
    assert list(islice(clients.parse_clock("fixed:0.5")(), 3)) == [0.5, 0.5, 0.5]
    assert list(islice(clients.parse_clock("backoff:1,1.5,2")(), 4)) == [1.0, 1.5, 2.0, 2.0]
    with pytest.raises(ValueError, match="neither"):
        clients.parse_clock("backoff:1")


def test_bound_is_checked_on_the_right_side() -> None:
    assert report.is_kept(1.05, 1.06) == "yes"
    assert report.is_kept(1.07, 1.06) == "NO"


@pytest.mark.parametrize(
    ("used", "refused", "kept"), [(0.95, 0.2, "yes"), (0.85, 0.2, "NO"), (0.95, 2.0, "NO")]
)
def test_a_limit_is_kept_to_when_it_is_used_and_few_creates_are_refused(
    used: float, refused: float, kept: str
) -> None:
    mine = {"used": used, "refused_a_job": refused}
    live = {
        "limit": 12,
        "bounds": {"used": 0.9, "refused_a_job": 1.5},
        "clients": {"veobatch": mine, "naive": mine},
    }
    assert f" {kept} " in report.limit({"live": live, "simulated": {}})


def makespan_results(*values: float) -> dict[str, Any]:
    found = {"jobs": 4, "at_once": 2, "bound": 1.06, "bound_s": 100.0, "naive": 1.08, "sample_loop": 30.0}
    measured = {"date": "2026-01-02", "command": "", "took_s": 3.0, "machine": "2 cores", "commit": "abc"}
    middle, rounds = sorted(values)[len(values) // 2], [{"veobatch": value} for value in values]
    return {"makespan": {**measured, "found": {**found, "veobatch": middle, "rounds": rounds}}}


def test_a_pages_table_is_made_anew_and_nothing_else() -> None:
    page = "before\n<!-- summary -->\nold\n<!-- end -->\nafter\n"
    renewed = summary.update_page(page, makespan_results(1.04))
    assert "old" not in renewed
    assert all(word in renewed for word in ("before", "after", "1.040", "2026-01-02", "2 cores", "abc"))
    assert summary.update_page(renewed, makespan_results(1.04)) == renewed


@pytest.mark.parametrize(
    ("rounds", "worse"), [([1.04], 0), ([1.06], 0), ([1.20], 1), ([1.0, 1.2, 1.4], 0), ([1.19, 1.2, 1.21], 1)]
)
def test_a_ratio_is_worse_only_beyond_the_noise_of_its_rounds(rounds: list[float], worse: int) -> None:
    page = summary.update_page("<!-- summary -->\n<!-- end -->", makespan_results(1.04))
    assert len(check.worse_than_page(page, makespan_results(*rounds))) == worse


def test_every_figure_of_the_page_has_a_line_of_its_own_and_a_section_that_is_measured() -> None:
    assert len({figure.what for figure in summary.FIGURES}) == len(summary.FIGURES)
    assert {figure.section for figure in summary.FIGURES} <= set(report.TABLES)
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    on_page = {
        figure.what for figure in summary.FIGURES if check.cell(page, figure.what, "ratio") is not None
    }
    assert len(on_page) == page.count("`--only "), "a line of the table is no figure any more"
    assert len(on_page) > len(summary.FIGURES) / 2


def test_waits_of_the_rows_that_fill_the_slots_stand_apart() -> None:
    waits = [(3.0, 0.2), (1.0, 5.0), (2.0, 4.0), (4.0, 0.0)]
    notes = [{"wait": wait, "prepared_s": [], "peak_mb": 90.0 + wait[0]} for wait in waits]
    notes[0]["prepared_s"] = [0.3]
    found = pictures.summary(notes, 2)
    assert (found["submissions"], found["prepared"]) == (4, 1)
    assert (found["longest_wait_while_filling_s"], found["longest_wait_s"]) == (5.0, 0.2)
    assert (found["waits_over_0.1_s"], found["peak_rss_mb"]) == (1, 94.0)


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_pictures_of_a_benchmark_differ_in_their_bytes_and_can_be_read(kind: str, tmp_path: Path) -> None:
    names = pictures.make_pictures(tmp_path / "stills", 3, 0.05, kind)
    files = [tmp_path / "stills" / name for name in names]
    assert len({path.read_bytes() for path in files}) == 3
    for path in files:
        with Image.open(path) as image:
            image.load()
            assert image.getexif()[0x0112] == pictures.TURNED


@pytest.mark.parametrize(
    ("times", "median", "longest"),
    [
        ([], 10.0, 10.0),
        ([1.0, 99.0], 10.0, 10.0),  # before and after
        ([11.0, 12.0, 13.0], 1.0, 7.0),
        ([18.0, 18.5, 19.0, 20.0], 0.75, 8.0),
    ],
)
def test_what_never_changes_has_stood_still_all_the_time(
    times: list[float], median: float, longest: float
) -> None:
    assert live_cadence.gaps(times, 10.0, 20.0) == {"median_s": median, "max_s": longest}
