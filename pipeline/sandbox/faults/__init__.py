"""Owns the ways to misbehave, each with a name. `FAULTS` is the one table of them."""

from __future__ import annotations

from pipeline.sandbox.faults.desk import Fault, FaultDesk, Stage, Subject
from pipeline.sandbox.faults.table import FAULTS, FaultKind

__all__ = ["FAULTS", "Fault", "FaultDesk", "FaultKind", "Stage", "Subject"]
