"""Projections of the ledger: results.csv, the report, the live page, the run log and the cost audit."""

from typing import Final

CSV_NAME: Final = "results.csv"
REPORT_NAME: Final = "report.html"
LOG_NAME: Final = "run.log"
