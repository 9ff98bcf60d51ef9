"""A vendor's log and charges over days of trouble, and a client that lives through them.

The vendor knows the truth: what was accepted, when it ends, when the log shows it. A history steps clocks,
restarts the client, changes its key, and lets the log lag, stand still, fork into replicas and forget.
Bounds: a rendering and the log's lag together take less than the waiting time; log and charges do not stand
still at the same time, since nobody could tell such a vendor from an honest one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import Any, cast

from pipeline.client import ChargedUsage, LogPage, LogRow, StatusError, TransactionPage
from pipeline.model import Record, State
from pipeline.poll.unknown_generations import UnknownIds
from pipeline.reconcile.in_doubt import (
    AbsenceTimer,
    FailedAtVendor,
    Found,
    NeverAccepted,
    StillInDoubt,
    mark_found,
    mark_never_accepted,
    mark_never_ran,
)
from pipeline.reconcile.reconciler import Reconciler
from tests.unit.samples import record

WAIT_S = 2700.0
MAX_RENDER_S = 1795.0
MAX_LAG_S = 890.0
START = 1_800_000_000.0
IDENTITY = "cafe"
API_URL = "https://api.example.com"


@dataclass(slots=True)
class VendorSubmission:
    """One create that was accepted, or refused after it had reached the vendor (`failed` at once)."""

    number: int
    name: str
    key: str
    created: float
    finish: float
    appears: float
    failed: bool = False

    @property
    def generation_id(self) -> str:
        return f"gen-{self.number}"


@dataclass(slots=True)
class HistoryVendor:
    """The truth, and what the log and the charges show of it."""

    rng: random.Random
    now: float = START
    submissions: list[VendorSubmission] = field(default_factory=list)
    frozen_at: float = inf
    charges_frozen_at: float = inf
    forked: bool = False
    gap: tuple[float, float] = (0.0, 0.0)
    retention_s: float = inf
    log_error: int = 0
    charges_error: int = 0
    asking: str = "A"
    requests: int = 0
    name: str = API_URL

    def vendor_now(self) -> float | None:
        return float(int(self.now)) if self.requests else None

    def accept(self, name: str, *, failed: bool = False) -> VendorSubmission:
        self.requests += 1
        render_s = 1.0 if failed else self.rng.choice((60.0, 300.0, self.rng.uniform(20, MAX_RENDER_S)))
        lag_s = self.rng.choice((1.0, 30.0, self.rng.uniform(0, MAX_LAG_S)))
        finish = self.now + render_s
        made = VendorSubmission(
            len(self.submissions), name, self.asking, self.now, finish, finish + lag_s, failed
        )
        self.submissions.append(made)
        return made

    def _log_rows(self) -> list[LogRow]:
        shown_at = min(self.now, self.frozen_at)
        oldest = self.now - self.retention_s
        rows = [
            s
            for s in self.submissions
            if s.key == self.asking
            and s.appears <= shown_at
            and s.created >= oldest
            and not self.gap[0] <= s.appears < self.gap[1]
        ]
        rows.sort(key=lambda s: s.created, reverse=True)
        return [
            LogRow(
                s.name,
                s.generation_id,
                request_id=f"r-{s.number}",
                succeeded=not s.failed,
                model="m",
                created=iso(s.created),
            )
            for s in rows
        ]

    async def log_page(
        self, window: dict[str, str], *, limit: int, offset: int, key_prefix: str = ""
    ) -> LogPage | StatusError:
        self.requests += 1
        if self.log_error and self.rng.random() < 0.7:
            return StatusError(self.log_error, f"HTTP {self.log_error}")
        start, end = self._window(window)
        rows = [
            row for row in self._log_rows() if start <= datetime.fromisoformat(row.created).timestamp() <= end
        ]
        if self.forked and offset:
            rows = rows[self.rng.randint(0, 14) :]
        page = rows[offset : offset + min(limit, 25)]
        return LogPage(tuple(page), len(page), offset + len(page) < len(rows))

    def _window(self, window: dict[str, str]) -> tuple[float, float]:
        if "period" in window:
            hours = {"24h": 24, "7d": 7 * 24}[window["period"]]
            return self.now - hours * 3600.0, inf
        start, end = (datetime.fromisoformat(window[name]).timestamp() for name in ("start", "end"))
        assert end - start <= 92 * 86_400.0
        return start, end

    async def transactions(self, *, cursor: str = "", limit: int = 100) -> Any:
        self.requests += 1
        if self.charges_error and self.rng.random() < 0.7:
            return StatusError(self.charges_error, f"HTTP {self.charges_error}")
        shown_at = min(self.now, self.charges_frozen_at)
        charged = [s for s in self.submissions if not s.failed and s.finish <= shown_at]
        charged.sort(key=lambda s: s.finish, reverse=True)
        first = int(cursor or 0)
        page = charged[first : first + 20]
        rest = first + 20 < len(charged)
        rows = tuple(ChargedUsage(s.generation_id, iso(s.finish)) for s in page)
        return TransactionPage(rows, str(first + 20) if rest else "")

    def paid(self, names: set[str]) -> list[VendorSubmission]:
        return [s for s in self.submissions if s.name in names and not s.failed]


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


@dataclass(slots=True)
class HistoryClient:
    """A ledger in memory, and processes that come and go over it. `wall_offset_s` is its clock's error."""

    vendor: HistoryVendor
    rng: random.Random
    records: dict[str, Record] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    timer: AbsenceTimer = field(default_factory=AbsenceTimer)
    order: dict[str, int] = field(default_factory=dict)
    wall_offset_s: float = 0.0
    clock_base: float = 0.0
    missing: dict[str, StillInDoubt] = field(default_factory=dict)

    def wall(self) -> float:
        return self.vendor.now + self.wall_offset_s

    def clock(self) -> float:
        return self.vendor.now - self.clock_base

    def restart(self) -> None:
        self.timer, self.order = AbsenceTimer(), {}
        self.clock_base = self.vendor.now - self.rng.uniform(0, 1000)

    def submit(self, key: str, *, fate: str, dated_at: float | None = None) -> None:
        """Send the row once more: its answer comes (`ok`), or is lost (`accepted`, `failed`, `never`).

        One that is `dated_at` was called then, and leaves only now.
        """
        current = self.records.get(key) or record(State.PENDING, key, key=key, model="m")
        name = f"vb.{IDENTITY}.{key}.d.{current.submission_no + 1}"
        self.names.setdefault(key, set()).add(name)
        known_now = None if self.rng.random() < 0.1 else self.vendor.vendor_now()
        sent = current.evolve(
            State.SUBMITTING,
            submission_no=current.submission_no + 1,
            correlation_id=name,
            submitted_at=self.wall(),
            key_id=self.vendor.asking,
            api_url=API_URL,
            vendor_sent_at=known_now if dated_at is None else dated_at,
            absent_since=None,
        )
        self.order[name] = len(self.order)
        made = None if fate == "never" else self.vendor.accept(name, failed=fate == "failed")
        if fate == "ok" and made is not None:
            self.records[key] = sent.evolve(State.GENERATING, generation_id=made.generation_id)
            return
        self.records[key] = sent.evolve(State.IN_DOUBT, doubted_at=self.wall())
        if self.rng.random() < 0.8:  # else its process dies before it hears of the doubt
            self.timer.sent[name] = self.clock()

    def poll(self) -> None:
        by_id = {s.generation_id: s for s in self.vendor.submissions}
        for key, row in self.records.items():
            made = by_id.get(row.generation_id)
            if row.state is State.GENERATING and made is not None and made.finish <= self.vendor.now:
                ready = row.evolve(State.READY, finished_at=self.wall(), usd_spent=1.0)
                self.records[key] = ready.evolve(State.DONE)

    async def reconcile(self) -> None:
        in_doubt = [r for r in self.records.values() if r.state is State.IN_DOUBT]
        if not in_doubt:
            return

        _, verdicts = await self.reconciler().ask(in_doubt, self.records.values(), self.order)
        for row in in_doubt:
            self._apply(row, verdicts[row.key])

    def reconciler(self) -> Reconciler:
        async def load_records() -> list[Record]:
            return list(self.records.values())

        return Reconciler(
            cast("Any", self.vendor),
            IDENTITY,
            WAIT_S,
            self.clock,
            self.wall,
            0.0,
            self.vendor.asking,
            load_records,
            UnknownIds(10.0, {}, set()),
            timer=self.timer,
        )

    def _apply(self, row: Record, verdict: Any) -> None:
        match verdict:
            case Found(generation_id=generation_id):
                self.records[row.key] = mark_found(row, generation_id)
            case NeverAccepted():
                self.records[row.key] = mark_never_accepted(row)
                self.submit(row.key, fate="ok")
            case FailedAtVendor():
                again = mark_never_ran(row, now=self.wall(), generation_retries=9)
                self.records[row.key] = again
                self.submit(row.key, fate="ok")
            case StillInDoubt(record=kept):
                self.records[row.key] = kept
                self.missing[row.key] = verdict

    def done(self) -> list[VendorSubmission]:
        by_id = {s.generation_id: s for s in self.vendor.submissions}
        return [by_id[r.generation_id] for r in self.records.values() if r.state is State.DONE]

    def in_doubt(self) -> list[str]:
        return [key for key, row in self.records.items() if row.state is State.IN_DOUBT]

    def paid_twice(self) -> list[str]:
        return [key for key, names in self.names.items() if len(self.vendor.paid(names)) > 1]


async def live_through(seed: int) -> HistoryClient:
    """Play one history to its honest end."""
    rng = random.Random(seed)
    vendor = HistoryVendor(rng)
    client = HistoryClient(vendor, rng)
    for key in "AB":  # an account that others use, too
        vendor.asking = key
        vendor.accept(f"other-{key}")
    vendor.now += rng.uniform(3, 6) * 86_400.0
    for number in range(rng.randint(2, 14)):
        if rng.random() < 0.75:
            fate = rng.choice(("ok", "ok", "ok", "accepted", "accepted", "never", "failed"))
            client.submit(f"row-{number}", fate=fate)
        for _ in range(rng.randint(0, 4)):
            _disturb(vendor, client, rng)
            vendor.now += rng.choice((5.0, 60.0, rng.uniform(0, 1200), rng.uniform(0, 4000)))
            client.poll()
            await client.reconcile()
    if rng.random() < 0.2:
        vendor.now += rng.uniform(1, 100) * 86_400.0
    await _live_honestly(vendor, client)
    return client


def _disturb(vendor: HistoryVendor, client: HistoryClient, rng: random.Random) -> None:
    trouble = rng.randint(0, 12)
    if trouble == 0:
        client.wall_offset_s = rng.uniform(-5, 5) * 3600.0
    elif trouble == 1:
        client.restart()
    elif trouble == 2:
        client.restart()
        vendor.asking = rng.choice("AB")
    elif trouble == 3 and vendor.charges_frozen_at == inf and vendor.charges_error != 404:
        vendor.frozen_at = min(vendor.frozen_at, vendor.now - rng.choice((0.0, rng.uniform(0, 5000))))
    elif trouble == 4:
        vendor.frozen_at = inf
    elif trouble == 5:
        vendor.forked = rng.random() < 0.5
    elif trouble == 6:
        vendor.log_error = rng.choice((0, 403, 500))
    elif trouble == 7:
        vendor.charges_error = rng.choice((0, 403, 500) + ((404,) if vendor.frozen_at == inf else ()))
    elif trouble == 8 and vendor.frozen_at == inf:
        vendor.charges_frozen_at = rng.choice((inf, vendor.now))
    elif trouble == 9:
        vendor.retention_s = rng.choice((inf, 30 * 86_400.0, 86_400.0))
    elif trouble == 11 and client.done():
        lost = rng.choice(client.done()).appears  # a part of the log in which there is a witness
        vendor.gap = rng.choice(((0.0, 0.0), (lost - rng.uniform(0, 900), lost + rng.uniform(1, 900))))
    elif trouble == 10:
        vendor.now += rng.choice((0.0, 0.0, rng.uniform(0, 40) * 86_400.0))


async def _live_honestly(vendor: HistoryVendor, client: HistoryClient) -> None:
    vendor.frozen_at = vendor.charges_frozen_at = vendor.retention_s = inf
    vendor.gap = (0.0, 0.0)
    vendor.forked, vendor.log_error, vendor.charges_error = False, 0, 0
    for step in range(24):
        vendor.now += 700.0
        if step in (5, 11):  # what the message asks for: another row is generated
            client.submit(f"more-{step}", fate="ok")
        if step % 6 == 0:
            client.restart()
            vendor.asking = "AB"[step // 6 % 2]
        client.poll()
        await client.reconcile()
