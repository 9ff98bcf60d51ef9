"""Projections of the ledger: results.csv, the report, the live page, the run log and the cost audit."""

from typing import Final

CSV_NAME: Final = "results.csv"
REPORT_NAME: Final = "report.html"
PICKS_PAGE_NAME: Final = "picks.html"
LOG_NAME: Final = "run.log"
