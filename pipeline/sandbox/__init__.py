"""A faithful stand-in for the vendor: its API, its CDN, its prices, its log and its bad days.

It imports nothing else of this project, so that it cannot share our misreadings of the vendor.
"""

from __future__ import annotations

from pipeline.sandbox.faults import FAULTS, Fault
from pipeline.sandbox.options import SandboxOptions
from pipeline.sandbox.server import Sandbox
from pipeline.sandbox.state import Generation, SandboxState

__all__ = ["FAULTS", "Fault", "Generation", "Sandbox", "SandboxOptions", "SandboxState"]
