"""The batch as Prometheus metrics, made of the records at the time they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.model import render_duration_s
from pipeline.results.csv_rows import STATUSES
from pipeline.results.totals import summarize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.core import Metric

    from pipeline.model import Record

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_RENDER_BUCKETS_S: Final = (10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1200.0, 1800.0)


def exposition(records: Sequence[Record], rate_limited_count: int) -> bytes:
    """Return the text that Prometheus scrapes. Raises `ImportError` without prometheus-client."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_BatchCollector(records, rate_limited_count))
    return generate_latest(registry)


class _BatchCollector:
    """A collector over records; it keeps nothing."""

    def __init__(self, records: Sequence[Record], rate_limited_count: int) -> None:
        self._records = records
        self._rate_limited_count = rate_limited_count

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        totals = summarize(self._records)
        rows = GaugeMetricFamily("veobatch_rows", "Rows of the manifest by status.", labels=["status"])
        for row_status in STATUSES:
            rows.add_metric([row_status.value], totals.counts.get(row_status, 0))
        yield rows
        yield GaugeMetricFamily("veobatch_spent_usd", "Money confirmed by the vendor.", totals.usd_spent)
        yield GaugeMetricFamily("veobatch_open_usd", "Money reserved for open rows.", totals.usd_open)
        yield GaugeMetricFamily("veobatch_saved_bytes", "Bytes of saved videos.", totals.saved_bytes)
        yield CounterMetricFamily("veobatch_polls", "Status requests.", totals.polls)
        yield CounterMetricFamily(
            "veobatch_throttled", "Responses 429 to a submission.", self._rate_limited_count
        )
        yield self._render_histogram()

    def _render_histogram(self) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        times = [taken for record in self._records if (taken := render_duration_s(record)) is not None]
        buckets = [(str(bound), float(sum(taken <= bound for taken in times))) for bound in _RENDER_BUCKETS_S]
        buckets.append(("+Inf", float(len(times))))
        help_text = "From the submission to the poll that saw it finished."
        return HistogramMetricFamily("veobatch_rendering_seconds", help_text, buckets, sum(times))
