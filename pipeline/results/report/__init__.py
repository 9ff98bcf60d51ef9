"""`report.html`: the whole batch on one page that needs nothing but the files beside it.

Owns the page's make-up and its content security policy. A projection of the ledger's records: it can be
made again at any time, and the same records give the same page. Knows no file system beyond its own
template, and asks no other host for anything.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from pipeline.model import State
from pipeline.results.csv import iso, listed, summary
from pipeline.results.report import axis, charts, data, story

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Environment, Template

    from pipeline.model import Record

__all__ = ["parts", "render", "shown"]

PARTS: Final = ("top", "troubles", "charts")
"""The sections a live page replaces as a whole; each is a template of its own."""


def render(
    records: Sequence[Record],
    *,
    title: str,
    manifest: str,
    generated_at: float,
    next_command: str = "",
    live: bool = False,
    since: str = "",
) -> str:
    """Return the page. `generated_at` is seconds since the epoch; `title` is what the batch is called.

    `next_command` is shown as what to do next. A `live` page listens to `./events` and keeps itself
    up to date; any other one never speaks to anybody. `since` is what it tells the server to have seen.
    """
    rows = shown(records, live=live)
    style, script = _source("page.css"), _script(live=live)
    return _template("page.html").render(
        **_facts(rows, live),
        title=title,
        manifest=manifest,
        generated_at=iso(generated_at),
        next_command=next_command,
        style=style,
        script=script,
        policy=_policy(style, script, live),
        payload=data.embed({"fields": data.FIELDS, "rows": data.rows(rows), "live": live, "since": since}),
    )


def parts(records: Sequence[Record], *, live: bool = True) -> dict[str, str]:
    """Return the HTML of the sections that change while a run goes on, by their names in `PARTS`."""
    facts = _facts(shown(records, live=live), live)
    return {name: _template(f"{name}.html").render(**facts) for name in PARTS}


def shown(records: Sequence[Record], *, live: bool = False) -> list[Record]:
    """Return the rows of the page. While a run goes on, a create on its way is a matter of seconds: it
    still waits its turn, and is in doubt only once its answer was given up."""
    rows = listed(records)
    if not live:
        return rows
    return [replace(row, state=State.PENDING) if row.state is State.SUBMITTING else row for row in rows]


def _facts(rows: Sequence[Record], live: bool) -> dict[str, object]:
    totals = summary(rows)
    troubles = story.troubles(rows)
    return {
        "live": live,
        "totals": totals,
        "headline": story.headline(totals, live=live),
        "figures": story.figures(totals, rows),
        "shares": story.shares(totals),
        "troubles": troubles[: story.GROUPS],
        "more_troubles": len(troubles) - story.GROUPS,
        "timeline": charts.timeline(rows),
        "distribution": charts.distribution(rows),
        "width": axis.WIDTH,
    }


def _policy(style: str, script: str, live: bool) -> str:
    # Not every browser counts the files beside a page on disk as its own.
    beside = "'self'" if live else "'self' file:"
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            # `data:` for the page's own icon, without which browsers ask the host for one.
            f"img-src {beside} data:",
            f"media-src {beside}",
            *(("connect-src 'self'",) if live else ()),
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


@lru_cache
def _source(name: str) -> str:
    return files(__name__).joinpath(name).read_text("utf-8")


@lru_cache
def _script(*, live: bool) -> str:
    """Return the page's script: its files in one scope of their own, then the call that starts it."""
    names = ("dom.js", "gallery.js", "detail.js", *(("live.js",) if live else ()))
    body = "\n".join(_source(name) for name in names)
    return f'"use strict";\n(() => {{\n{body}\nstart();\n{"listen();" if live else ""}\n}})();\n'


@lru_cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _template(name: str) -> Template:
    return _environment().get_template(name)
