"""`report.html`: the whole batch on one page that needs nothing but the files beside it.

Owns how the page is put together and its content security policy. A projection of the ledger's records: it
can be made again at any time, and the same records give the same page. Reads no file but its own templates.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pipeline.model import State
from pipeline.results import overview
from pipeline.results.csv_rows import iso, visible_records
from pipeline.results.failures import failure_groups
from pipeline.results.report import axis, charts, page_data
from pipeline.results.totals import summarize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Environment, Template

    from pipeline.ledger.totals import Totals
    from pipeline.model import Record
    from pipeline.results.row_blocks import RowBlocks
    from pipeline.results.totals import Summary

__all__ = ["page_records", "render", "render_charts", "render_sums"]

SECTIONS: Final = ("top", "failures", "charts")
"""The sections that a live page replaces whole; each has a template of its own."""


def render(
    records: Sequence[Record],
    *,
    title: str,
    manifest: str,
    generated_at: float,
    next_command: str = "",
    live: bool = False,
    since: str = "",
    sandbox: bool = False,
    money: Totals | None = None,
    client: bool = False,
    batch: str = "",
    token: str = "",
    packed: RowBlocks[str] | None = None,
) -> str:
    """Return the page. `generated_at` is seconds since the epoch; `title` is what the batch is called.

    `next_command` is shown as what to do next. A `live` page listens to `./events` and keeps itself up to
    date; any other asks for the files beside it and, in a row's details, the row's source image. `since` is
    the last change that the page contains. `sandbox` says that no money is real. A page for a `client` has
    the clips and nothing of how they were made. `batch` is the ledger's identity, by which a browser keeps
    the picks of a page on disk; a live page with a `token` sends them to its server; `packed` has blocks
    that were made before.
    """
    rows, style, script = page_records(records, live=live), _read_asset("page.css"), _build_script(live=live)
    review = "" if client else ("live" if token else "") if live else "file"
    facts = {"title": title, "manifest": manifest, "next_command": next_command, "client": client}
    facts |= {"style": style, "script": script, "policy": _content_security_policy(style, script, live)}
    payload = page_data.page_payload(
        rows, packed, sandbox=sandbox, since=since, review=review, batch=batch or title, token=token
    )
    return _template("page.html").render(
        **_template_context(rows, live, sandbox, money),
        **facts,
        generated_at=iso(generated_at),
        review=bool(review),
        payload=payload,
    )


def load_templates() -> None:
    """Import and compile what `render` needs, so that the first page takes no longer than the next."""
    _build_script(live=False)
    for name in ("page", *SECTIONS):
        _template(f"{name}.html")


def render_sums(
    totals: Summary, figures: Sequence[overview.Figure], troubled: Sequence[Record], *, live: bool = True
) -> dict[str, str]:
    """Return the HTML of the sums, by their sections' names; `troubled` has every row that went wrong."""
    context = _sums_context(totals, figures, troubled, live=live)
    return {name: _template(f"{name}.html").render(**context) for name in ("top", "failures")}


def render_charts(records: Sequence[Record], *, live: bool = True) -> dict[str, str]:
    """Return the HTML of the charts, by their section's name."""
    rows = page_records(records, live=live)
    context = _charts_context(rows, overview.rendering_times(rows))
    return {"charts": _template("charts.html").render(**context)}


def page_records(records: Sequence[Record], *, live: bool = False) -> list[Record]:
    """Return the rows of the page. While a run goes on, a submission under way takes seconds: it still counts
    as pending, and is in doubt only once its response was given up."""
    rows = visible_records(records)
    if not live:
        return rows
    return [replace(row, state=State.PENDING) if row.state is State.SUBMITTING else row for row in rows]


def _template_context(
    rows: Sequence[Record], live: bool, sandbox: bool, money: Totals | None = None
) -> dict[str, object]:
    totals, times = summarize(rows, sandbox=sandbox, money=money), overview.rendering_times(rows)
    figures = overview.figures_of(totals, overview.batch_size(rows), times)
    sums = _sums_context(totals, figures, rows, live=live)
    return {"live": live, "sandbox": sandbox, **sums, **_charts_context(rows, times)}


def _sums_context(
    totals: Summary, figures: Sequence[overview.Figure], troubled: Sequence[Record], *, live: bool
) -> dict[str, object]:
    groups = failure_groups(troubled)
    return {
        "totals": totals,
        "headline": overview.headline(totals, live=live),
        "figures": figures,
        "shares": overview.status_shares(totals),
        "failures": groups[: overview.MAX_FAILURE_GROUPS],
        "more_failures": len(groups) - overview.MAX_FAILURE_GROUPS,
    }


def _charts_context(rows: Sequence[Record], times: Sequence[float]) -> dict[str, object]:
    return {
        "timeline": charts.timeline(rows),
        "distribution": charts.distribution(times),
        "width": axis.WIDTH,
    }


def _content_security_policy(style: str, script: str, live: bool) -> str:
    # Not every browser counts the files beside a page on disk as its own.
    own_files = "'self'" if live else "'self' file:"
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_csp_hash(script)}",
            f"style-src {_csp_hash(style)}",
            # `data:` for the page's own icon, without which browsers ask the host for one; other hosts for
            # the source image in a row's details.
            f"img-src {own_files} data: https: http:",
            f"media-src {own_files}",
            *(("connect-src 'self'",) if live else ()),
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _csp_hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


@lru_cache
def _read_asset(name: str) -> str:
    from importlib.resources import files

    return files(__name__).joinpath(name).read_text("utf-8")


@lru_cache
def _build_script(*, live: bool) -> str:
    """Return the page's script: its files in one scope of their own, then the call that starts it."""
    names = (
        "dom.js",
        "gallery.js",
        "play.js",
        "review.js",
        "detail.js",
        "keys.js",
        *(("live.js",) if live else ()),
    )
    body = "\n".join(_read_asset(name) for name in names)
    begin = "() => { start(); connectEvents(); }" if live else "start"
    return f'"use strict";\n(() => {{\n{body}\nload({begin});\n}})();\n'


@lru_cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(_read_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _template(name: str) -> Template:
    return _environment().get_template(name)
