"""How many at once and how fast: what the account gives, found from its refusals. Pure and synchronous."""

from __future__ import annotations

from pipeline.pacing.creates import CreateGate, Gate
from pipeline.pacing.lending import Lender, LentGate, LentPace, Looked, PaceLender, Share, Verdict
from pipeline.pacing.looks import LookPace, Pace
from pipeline.pacing.retry_after import parse_retry_after

__all__ = [
    "CreateGate",
    "Gate",
    "Lender",
    "LentGate",
    "LentPace",
    "LookPace",
    "Looked",
    "Pace",
    "PaceLender",
    "Share",
    "Verdict",
    "parse_retry_after",
]
