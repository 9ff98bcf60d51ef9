"""The ledger: the durable record of every transition of every job.

It owns what is on disk (or in PostgreSQL) about the jobs of a batch, the compare-and-set by which only
one of several callers makes a transition, and group commit. It must not know HTTP, files of videos, or why a
transition is made. SQLAlchemy and the drivers are imported when a ledger is opened, not before.
"""

from pipeline.ledger.ledger import Ledger

__all__ = ["Ledger"]
