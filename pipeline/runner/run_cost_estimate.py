"""What a run is going to cost, known before it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.manifest.identity import canonical_key
from pipeline.model import State
from pipeline.results.overview import counted
from pipeline.runner.manifest_loading import price_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.client.catalog import Catalog
    from pipeline.model import Record
    from pipeline.runner.manifest_loading import LoadedManifest

SUBMITTABLE_STATES = frozenset({State.PENDING, State.SUBMITTING, State.IN_DOUBT, State.GENERATING})


@dataclass(frozen=True, slots=True)
class PriceTable:
    """USD by the key of a record; a key that is missing has the `assumed` price, None when unknown."""

    by_key: Mapping[str, float] = field(default_factory=dict)
    assumed: float | None = None

    def price_usd(self, record: Record) -> float | None:
        return self.price_of_key(record.key)

    def price_of_key(self, key: str) -> float | None:
        """Return the price of a job by its key; jobs that have left the manifest have the assumed one."""
        return self.by_key.get(key, self.assumed)


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What is about to be submitted. `usd` counts the rows whose price is known.

    Each take is a row here; `takes_of` counts their rows in the manifest, 0 when none has several.
    `batch_usd` is what the whole batch comes to, with what its rows have cost already; None when unknown.
    """

    rows: int
    usd: float
    unknown_rows: int
    balance_usd: float | None
    batch_usd: float | None = None
    sandbox: bool = False
    takes_of: int = 0

    def to_text(self) -> str:
        """Return one line for a person."""
        if self.rows == self.unknown_rows:
            cost = "the price is unknown"
        else:
            cost = f"${self.usd:,.2f}"
            cost += f" and {self.unknown_rows} of unknown price" if self.unknown_rows else ""
        balance = "" if self.balance_usd is None else f"; ${self.balance_usd:,.2f} on the account"
        if self.sandbox:
            balance = " of the sandbox's play money: nothing is spent"
        takes = f" (takes of {counted(self.takes_of, 'row')})" if self.takes_of else ""
        return f"{self.rows} to submit{takes}: {cost}{balance}"


async def load_prices(
    records: Sequence[Record], loaded: LoadedManifest, catalogue: Catalog, assumed: float | None
) -> PriceTable:
    """Price the manifest's rows from the catalogue; asks nothing when no row can still be submitted."""
    if not any(record.state in SUBMITTABLE_STATES and record.position >= 0 for record in records):
        return PriceTable(assumed=assumed)
    quote, _ = await price_manifest(loaded, catalogue)
    pairs = zip(loaded.manifest.jobs, quote.prices, strict=True)
    shared: dict[float, float] = {}  # a hundred thousand rows have a few prices
    by_key = {job.key: shared.setdefault(price, price) for job, price in pairs if price is not None}
    if len(shared) == 1 and len(by_key) == len(records):  # a table of one price takes 4 MB for 100,000 rows
        return PriceTable(assumed=next(iter(shared)))
    others = [r for r in records if r.position >= 0 and r.key not in by_key] if by_key else []
    written_otherwise = {r.key: key for r in others if (key := canonical_key(r)) in by_key}
    by_key |= {key: by_key[other] for key, other in written_otherwise.items()}
    return PriceTable(by_key, assumed)


def estimate_cost(
    records: Sequence[Record],
    prices: PriceTable,
    balance_usd: float | None,
    submittable: frozenset[str] | None = None,
    *,
    sandbox: bool = False,
) -> CostEstimate:
    """Return what the pending rows will cost, beside `balance_usd` when there are any. `sandbox`: play money.

    `submittable` are the keys of those that this run may submit, None for all.
    """
    pending = [r for r in records if r.state is State.PENDING and r.position >= 0]
    pending = [r for r in pending if submittable is None or r.key in submittable]
    known = [prices.price_usd(r) for r in pending]
    all_rows = [_row_cost_usd(r, prices) for r in records if r.position >= 0 and r.state is not State.FAILED]
    batch_usd = (
        None if None in all_rows or not all_rows else sum(cost for cost in all_rows if cost is not None)
    )
    return CostEstimate(
        rows=len(known),
        usd=sum(price for price in known if price is not None),
        unknown_rows=sum(price is None for price in known),
        balance_usd=balance_usd if known else None,
        batch_usd=batch_usd,
        sandbox=sandbox,
        takes_of=len({r.row_id for r in pending}) if any(r.take > 1 for r in pending) else 0,
    )


def _row_cost_usd(record: Record, prices: PriceTable) -> float | None:
    known = record.usd_spent if record.usd_spent is not None else record.reserved_usd
    return prices.price_usd(record) if known is None else known
