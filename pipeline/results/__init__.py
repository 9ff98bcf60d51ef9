"""Projections of the ledger: results.csv, the report, the live page, the run log and the cost audit."""

from typing import Final

CSV_NAME: Final = "results.csv"
REPORT_NAME: Final = "report.html"
PICKS_PAGE_NAME: Final = "picks.html"
LOG_NAME: Final = "run.log"
_PAGE_SIGN: Final = b'<meta name="generator" content="veobatch">'
PAGE_HEAD_BYTES: Final = 16_384


def is_our_page(data: bytes) -> bool:
    """Return whether veobatch wrote the page that begins with `data`, its first `PAGE_HEAD_BYTES`."""
    return _PAGE_SIGN in data[:PAGE_HEAD_BYTES]
