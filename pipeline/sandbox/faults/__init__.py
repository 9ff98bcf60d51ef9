"""The ways to misbehave, each with a name. `FAULTS` is the table of them."""

from __future__ import annotations

from pipeline.sandbox.faults.catalog import FAULTS, FaultKind
from pipeline.sandbox.faults.injector import Fault, FaultInjector, FaultPoint, RequestContext

__all__ = ["FAULTS", "Fault", "FaultInjector", "FaultKind", "FaultPoint", "RequestContext"]
