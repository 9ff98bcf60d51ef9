"""The page's source: what it says, that nothing in it can run, and that it is quick to write."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.model import Failure, Media, State
from pipeline.results import overview
from pipeline.results.failures import IN_DOUBT_MESSAGE, failure_groups
from pipeline.results.live.running_sums import RunningSums
from pipeline.results.report import axis, charts, page_data, render, render_charts, render_sums
from pipeline.results.totals import summarize
from tests.unit.sample_rows import T0, done, failed, row

if TYPE_CHECKING:
    from pipeline.model import Record

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> \"'&\u2028\u2029 \ud800 {{ 7*7 }}"


def page(rows: list[Any], **changes: Any) -> str:
    facts: dict[str, Any] = {"title": "overnight", "manifest": "jobs/overnight.yaml", "generated_at": T0}
    return render(rows, **(facts | changes))


def payload(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    assert not set("<>&\u2028\u2029") & set(found[1]), "nothing in it may end the element or a line"
    got: dict[str, Any] = json.loads(found[1])
    return got


class Elements(HTMLParser):
    """Counts elements and collects what could speak to another host or run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.handlers: list[str] = []
        self.sources: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]


def test_the_page_says_what_happened() -> None:
    html = page([done(0), done(1), failed(2), row(3, State.IN_DOUBT), row(4)], next_command="veobatch run x")
    assert "2 of 5 videos are saved." in html
    assert "1 failed, 1 is in doubt and 1 is not submitted." in html
    assert "duration must be one of 4, 6, 8" in html
    assert "line 12" in html
    assert "<code>veobatch run x</code>" in html
    assert html.count("<svg") >= 3


def test_hostile_text_stays_text() -> None:
    names: dict[str, Any] = {
        "prompt": HOSTILE,
        "id": HOSTILE,
        "model": HOSTILE,
        "manifest_image": "javascript:alert(1)",
    }
    rows = [
        done(0, **names),
        failed(1, HOSTILE, **names),
        row(2, State.FAILED, failure=Failure(HOSTILE, HOSTILE), **names),
    ]
    html = page(rows, title=HOSTILE, manifest=HOSTILE, next_command=HOSTILE)
    plain = Elements(
        page([done(0), failed(1), row(2, State.FAILED, failure=Failure("a", "b"))], next_command="n")
    )
    hostile = Elements(html)
    assert hostile.names == plain.names
    assert hostile.handlers == []
    assert hostile.sources == [plain.sources[0], "#videos", "results.csv", "results.csv"]
    got = payload(html)
    first = dict(zip(got["fields"], got["rows"][0], strict=True))
    assert first["prompt"] == HOSTILE.replace("\ud800", "?")
    assert first["image"] == ""


def test_the_policy_lets_nothing_in_and_the_hashes_are_right() -> None:
    html = page([done(0)])
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    rules = policy[1].replace("&#39;", "'")
    assert rules.startswith("default-src 'none'; ")
    assert "unsafe" not in rules
    assert "connect-src" not in rules
    for tag in ("style", "script"):
        inline = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert len(inline) == 1
        digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in rules


def test_a_live_page_may_speak_to_its_own_server_only() -> None:
    assert "connect-src &#39;self&#39;" in page([done(0)], live=True)
    assert "connectEvents();" in page([done(0)], live=True)
    assert "EventSource" not in page([done(0)])


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("videos/a b#1?.mp4", "videos/a%20b%231%3F.mp4"),
        ("//evil/x", "evil/x"),
        ("javascript:x", "javascript%3Ax"),
    ],
)
def test_paths_can_only_lead_beside_the_page(path: str, url: str) -> None:
    assert page_data.relative_url(path) == url


def test_parameters_are_shown_but_not_what_has_a_place_of_its_own() -> None:
    body = json.dumps(
        {"model": "m", "prompt": "p", "image_url": "u", "duration": 8, "audio": True, "seed": "7"}
    )
    assert page_data.display_params(body) == [("duration", "8"), ("audio", "true"), ("seed", "7")]
    assert page_data.display_params("{") == page_data.display_params("[]") == []


def test_failures_are_grouped_by_message_and_in_doubt_comes_last() -> None:
    rows = [row(9, State.SUBMITTING), failed(0, "a"), failed(1, "b"), failed(2, "b"), row(8, State.IN_DOUBT)]
    got = [(group.message, group.count) for group in failure_groups(rows)]
    assert got == [("b", 2), ("a", 1), (IN_DOUBT_MESSAGE, 2)]


def test_many_failures_stay_a_short_page() -> None:
    html = page([failed(index, "reason " + "ab"[index % 2] * (index % 100)) for index in range(10_000)])
    body = html[: html.index('id="data"')]
    assert body.count('<details class="failure') == overview.MAX_FAILURE_GROUPS
    assert "and 60 more reasons" in body
    assert "and 75 more in" in body


def test_the_headline_of_each_way_it_may_stand() -> None:
    def said(rows: list[Any], *, live: bool = False) -> str:
        return " ".join(overview.headline(summarize(rows), live=live)).strip()

    assert said([]) == "Nothing here yet. The manifest has no rows."
    assert said([done(0)]) == "The video is saved."
    assert said([done(0), done(1)]) == "All 2 videos are saved."
    assert said([failed(0)]) == "No video was saved. 1 failed."
    assert said([done(0), row(1, State.GENERATING), row(2)], live=True) == (
        "1 of 3 videos is saved. 1 is rendering and 1 is not submitted yet."
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (8, "8.0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (80, "1 min 20 s"),
        (3599.6, "1 h 00 min"),
    ],
)
def test_spans_read_well(seconds: float, words: str) -> None:
    assert overview.format_duration(seconds) == words


def test_money_is_told_as_well_as_it_is_known() -> None:
    def spent(rows: list[Any]) -> tuple[str, str]:
        return next(
            (f.value, f.detail) for f in overview.figures(summarize(rows), rows) if f.label == "spent"
        )

    assert spent([row(0)]) == ("$0.00", "nothing yet")
    assert spent([done(0)]) == ("$1.20", "confirmed by the vendor")
    assert spent([done(0), row(1, State.GENERATING, reserved_usd=2.4)]) == ("$1.20", "$2.40 more reserved")
    assert spent([done(0), done(1, usd_spent=None)]) == ("$2.40", "$1.20 of it estimated")
    assert spent([done(0, usd_spent=None, reserved_usd=None)]) == ("unknown", "the price of 1 row is unknown")


def test_a_small_amount_is_not_hidden() -> None:
    assert [overview.format_usd(usd) for usd in (0, 0.0042, 0.42, 1234.5)] == [
        "$0.00",
        "$0.0042",
        "$0.42",
        "$1,234.50",
    ]


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (352_400_000, "352 MB"), (10**13, "10.0 TB")],
)
def test_sizes_read_well(count: int, words: str) -> None:
    assert overview.format_bytes(count) == words


def test_the_timeline_draws_each_job_from_create_to_file() -> None:
    timeline = charts.timeline([done(1, 100.0), done(0, 50.0), row(2)])
    assert timeline is not None
    first, second = timeline.lanes
    assert [kind for kind, _, _ in first.segments] == ["submit", "rendering", "undetected", "download"]
    assert first.title == "job-0: done, rendered in 50 s"
    # The whole takes 103 s: from the first create to the second job's file.
    kind, begin, width = second.segments[-1]
    assert kind == "download"
    assert begin == pytest.approx(1000 * 101 / 103)
    assert begin + width == pytest.approx(1000)


def test_the_night_between_two_runs_is_left_out() -> None:
    later = done(1, submitted_at=T0 + 80_000, accepted_at=T0 + 80_001, not_yet_at=T0 + 80_050)
    later = replace(later, finished_at=T0 + 80_060, downloaded_at=T0 + 80_100)
    timeline = charts.timeline([done(0, 98.0), later])
    assert timeline is not None
    first, second = timeline.lanes
    assert [pause.label for pause in timeline.pauses] == ["22 h 12 min later"]
    assert first.segments[-1][1] + first.segments[-1][2] == pytest.approx(470)
    assert second.segments[0][1] == pytest.approx(530)
    assert [tick.label for tick in timeline.ticks].count("0") == 2


def test_a_short_wait_is_drawn_as_it_was() -> None:
    timeline = charts.timeline([done(0), done(350)])
    assert timeline is not None
    assert timeline.pauses == ()


def test_a_big_timeline_is_an_even_sample() -> None:
    timeline = charts.timeline([done(index) for index in range(5000)])
    assert timeline is not None
    assert len(timeline.lanes) == charts.MAX_LANES
    assert timeline.total == 5000


def test_the_distribution_counts_every_rendering_once() -> None:
    drawn = charts.distribution([60.0 + index for index in range(100)])
    assert drawn is not None
    assert sum(int(bar.title.rsplit(": ", 1)[1]) for bar in drawn.bars) == 100
    assert max(bar.height for bar in drawn.bars) == drawn.height
    assert (
        drawn.caption
        == "Half of 100 renderings took no more than 1 min 50 s, nine in ten no more than 2 min 30 s."
    )
    assert 0 <= drawn.median.x < drawn.p90.x <= axis.WIDTH


@pytest.mark.parametrize("rows", [[], [row(0)], [done(0)], [done(0, 0.0)], [done(0, 90.0), done(1, 90.0)]])
def test_charts_of_very_little(rows: list[Any]) -> None:
    assert "<h1>" in page(rows)


def test_ticks_are_round_and_few() -> None:
    assert [tick.label for tick in axis.ticks_between(0, 307)] == [
        "0",
        "1 min",
        "2 min",
        "3 min",
        "4 min",
        "5 min",
    ]
    for length in (0.5, 7, 100, 5000, 90_000, 10**7):
        assert 2 <= len(axis.ticks_between(0, length)) <= 10


def live_sums(rows: list[Record]) -> dict[str, str]:
    sums = RunningSums({row.key: row for row in rows})
    return render_sums(totals := sums.summary(), sums.figures(totals), sums.troubled())


def test_the_parts_of_a_live_page_are_those_of_the_page() -> None:
    rows = [done(0), failed(1)]
    html = page(rows, live=True)
    sections = {**live_sums(rows), **render_charts(rows)}
    assert sections.keys() == {"top", "failures", "charts"}
    assert all(part.strip() in html for part in sections.values())


def test_outstanding_create_is_not_in_doubt_during_run() -> None:
    sending = row(0, State.SUBMITTING)
    assert "1 is in doubt" in page([sending])
    assert "1 is not submitted yet" in page([sending], live=True)
    assert "1 is not submitted yet" in live_sums([sending])["top"]


def test_media_warnings_reach_the_page() -> None:
    media = Media(7.2, 1280, 720, 24.0, has_audio=False, warnings=("shorter than asked",))
    artifact = done(0).artifact
    assert artifact is not None
    changed = done(0, artifact=type(artifact)("v.mp4", 1, "00", media))
    got = payload(page([changed]))
    assert dict(zip(got["fields"], got["rows"][0], strict=True))["warnings"] == ["shorter than asked"]


def test_ten_thousand_rows_are_written_in_time() -> None:
    rows = [done(index) for index in range(10_000)]
    began = time.process_time()
    html = page(rows)
    assert time.process_time() - began < 5
    assert len(html) < 2_000_000, "rows are compressed: a hundred thousand fit into a page of some megabytes"


def test_many_runs_still_fit_the_width() -> None:
    timeline = charts.timeline([done(index * 100_000) for index in range(60)])
    assert timeline is not None
    assert len(timeline.pauses) == 59
    assert all(
        0 <= begin <= begin + width <= axis.WIDTH + 1
        for lane in timeline.lanes
        for _, begin, width in lane.segments
    )
