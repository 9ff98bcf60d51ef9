"""A stand-in for the vendor: its API, its CDN, its prices, its request log, and faults by name.

It imports nothing else of this project, so that it cannot share our misreadings of the vendor.
"""

from __future__ import annotations

from pipeline.sandbox.faults import FAULTS, Fault
from pipeline.sandbox.keys import KeyRule, parse_key
from pipeline.sandbox.lifecycle import Retirement, parse_retirement
from pipeline.sandbox.options import SandboxOptions
from pipeline.sandbox.server import Sandbox
from pipeline.sandbox.state import Generation, SandboxState

__all__ = [
    "FAULTS",
    "Fault",
    "Generation",
    "KeyRule",
    "Retirement",
    "Sandbox",
    "SandboxOptions",
    "SandboxState",
    "parse_key",
    "parse_retirement",
]
