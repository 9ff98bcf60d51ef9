"""Asks before money is spent, once, on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pipeline.cli import signals
from pipeline.runner.planning import refuse_rewritten, rewritten_message

if TYPE_CHECKING:
    from pipeline.batch_plan import BatchPlan
    from pipeline.runner.run_cost_estimate import CostEstimate


def confirm_rewritten(plan: BatchPlan) -> None:
    """Ask, also with `--yes`, before a manifest that seems rewritten throughout is paid for again.

    Raises `UsageError` when the answer is No, or when there is no terminal to ask on.
    """
    if sys.stdin.isatty() and sys.stderr.isatty():
        with signals.current().asking():
            if click.confirm(f"{rewritten_message(plan)}. Pay for the new rows?", default=False, err=True):
                return
    refuse_rewritten(plan)


def confirm_cost(cost_estimate: CostEstimate, *, assume_yes: bool) -> bool:
    """Ask once whether to spend, when there is something to spend and a terminal to ask on."""
    if assume_yes or not cost_estimate.rows or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    with signals.current().asking():
        return click.confirm(f"{cost_estimate.to_text()}. Go on?", default=False, err=True)
