"""Return whether and when a create that was provably not accepted is tried again.

Pure rules: no clock, no IO. The arithmetic of backoff and jitter is tenacity's; what to retry, and what
counts against a row, is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tenacity import RetryCallState, Retrying, wait_exponential, wait_random

if TYPE_CHECKING:
    from tenacity.wait import wait_base

NEVER_REACHED_LIMIT_S: Final = 120.0
OUTAGE_LIMIT_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How hard a row tries to be accepted. Durations in seconds.

    `max_rejections` is how many refusals of a passing kind (500, 503) a row may collect while other rows are
    being accepted: then it is the row, not the vendor. Refusals during an outage do not count.
    """

    max_rejections: int
    first_wait_s: float
    max_wait_s: float


def policy_for_interval(poll_interval_s: float) -> RetryPolicy:
    """Return the policy at this pace: 1 s to 60 s with the usual interval of 10 s."""
    return RetryPolicy(max_rejections=8, first_wait_s=poll_interval_s / 10, max_wait_s=poll_interval_s * 6)


def backoff_s(policy: RetryPolicy, attempt: int) -> float:
    """Return how long to wait after the `attempt`-th failure (from 1): exponential, with jitter."""
    state = RetryCallState(_UNUSED_RETRYING, None, (), {})
    state.attempt_number = max(1, min(attempt, 64))
    exponential: wait_base = wait_exponential(multiplier=policy.first_wait_s, max=policy.max_wait_s)
    return min(exponential(state) + wait_random(0, policy.first_wait_s)(state), policy.max_wait_s)


_UNUSED_RETRYING: Final = Retrying()


def retries_exhausted(policy: RetryPolicy, rejections: int) -> bool:
    """Return whether a row with so many refusals of its own has had its chances."""
    return rejections >= policy.max_rejections


def outage_limit_s(*, ever_reached: bool) -> float:
    """Return how long a run without one answer goes on: a wrong address is noticed sooner."""
    return OUTAGE_LIMIT_S if ever_reached else NEVER_REACHED_LIMIT_S


def should_regenerate(*, retryable: bool, faults: int, generation_retries: int) -> bool:
    """Return whether a generation that failed (uncharged) is worth another one."""
    return retryable and faults < generation_retries
