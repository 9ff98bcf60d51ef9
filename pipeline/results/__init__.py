"""Projections of the ledger: results.csv, the report, the live page, the run log and the cost audit."""
