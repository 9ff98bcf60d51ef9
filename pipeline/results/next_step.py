"""The command that continues a batch, fitted to what ended the run. Pure: records in, a command out."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.errors import StopReason
from pipeline.model import State
from pipeline.results.failures import retry_helps

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.model import Record

HINTS: Final = {
    StopReason.CREDITS: "after topping up the account",
    StopReason.KEY: "with a key that works",
    StopReason.MODEL: "with a model that the vendor has: --model NAME, or in the manifest",
    StopReason.QUOTA: "when the quota allows; --wait-for-quota waits for it",
    StopReason.BUDGET: "with a larger --max-cost",
    StopReason.DISK: "once the output can be written",
    StopReason.LEDGER: "once the ledger can be used",
    StopReason.UNREACHABLE: "once the API can be reached",
    StopReason.IMAGE_STORE: "once the image store takes pictures",
    StopReason.IN_DOUBT: "asks the log again; --resubmit-in-doubt submits them again and may pay twice",
}
RUN_FACTS_NAME: Final = "last_run"
"""The ledger's fact that holds a `RunFacts`."""

_MAX_NAMED_LINES: Final = 5
_ENDED: Final = frozenset({State.DONE, State.FAILED})


@dataclass(frozen=True, slots=True)
class NextStep:
    """A command to type, empty when there is nothing to do; `hint` says what has to be done with it."""

    command: str = ""
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.command}  ({self.hint})" if self.hint else self.command


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the ledger keeps of the last run, so that its next command can be named at any time."""

    argv: Sequence[str]
    stop_reason: StopReason | None
    batch_usd: float | None

    def to_json(self) -> str:
        reason = self.stop_reason.value if self.stop_reason else None
        return json.dumps({"argv": list(self.argv), "stop_reason": reason, "batch_usd": self.batch_usd})

    @classmethod
    def from_json(cls, text: str | None) -> RunFacts | None:
        """Return the facts, None when there are none: the ledger is of an earlier version."""
        if not text:
            return None
        facts = json.loads(text)
        reason = StopReason(facts["stop_reason"]) if facts["stop_reason"] else None
        return cls(facts["argv"], reason, facts["batch_usd"])


def next_step(
    records: Sequence[Record],
    argv: Sequence[str],
    stop_reason: StopReason | None = None,
    *,
    batch_usd: float | None = None,
) -> NextStep:
    """Return what to do next. `argv` are the arguments of the run, without anything secret; a batch made in
    code has none, and no command continues it.

    `batch_usd` is what the whole batch is expected to cost: the `--max-cost` that is offered after a run
    that the budget stopped.
    """
    if not argv:
        return NextStep()
    if has_open_rows(records) or stop_reason not in (None, StopReason.INTERRUPTED):
        if stop_reason is StopReason.BUDGET and batch_usd:
            enough = f"{math.ceil(batch_usd * 100 - 1e-6) / 100:.2f}"
            return NextStep(_command([*without_option(argv, "--max-cost"), "--max-cost", enough]))
        return NextStep(_command(argv), HINTS.get(stop_reason, "") if stop_reason else "")
    failed = [record for record in records if record.state is State.FAILED and record.position >= 0]
    return _after_failures(failed, argv) if failed else NextStep()


def has_open_rows(records: Iterable[Record]) -> bool:
    """Return whether another run has rows to continue with."""
    return any(
        record.state not in _ENDED and not (record.position < 0 and record.state is State.PENDING)
        for record in records
    )


def _after_failures(failed: Sequence[Record], argv: Sequence[str]) -> NextStep:
    """Offer a retry only for failures that it may cure; the others need an edit first."""
    plain = without_option(argv, "--only")
    retried = "--retry-failed" in plain
    retryable = {
        record.failure.code if record.failure else "failed" for record in failed if retry_helps(record)
    }
    if retryable and not retried:
        others = any(not retry_helps(record) for record in failed)
        only = [part for code in sorted(retryable) for part in ("--only", code)] if others else []
        return NextStep(_command([*plain, "--retry-failed", *only]))
    not_found = [record for record in failed if record.failure and record.failure.code == "not_found"]
    if len(not_found) == len(failed):
        arguments = [*without_option(plain, "--base-url"), *([] if retried else ["--retry-failed"])]
        return NextStep(_command(arguments), "with the API's own --base-url, or with another model")
    refused = [record for record in failed if not retry_helps(record)]
    if not refused:
        return NextStep()
    again = [argument for argument in plain if argument != "--retry-failed"]
    return NextStep(_command(again), f"after editing {_lines(refused)}")


def _lines(records: Sequence[Record]) -> str:
    lines = sorted({record.line for record in records if record.line})
    if not lines:
        return "the refused rows"
    if len(lines) == 1:
        return f"line {lines[0]} of the manifest"
    shown = ", ".join(map(str, lines[:_MAX_NAMED_LINES]))
    more = f" and {len(lines) - _MAX_NAMED_LINES:,} more" if len(lines) > _MAX_NAMED_LINES else ""
    return f"lines {shown}{more} of the manifest"


def _command(argv: Sequence[str]) -> str:
    return shlex.join(["veobatch", *argv])


def without_option(argv: Sequence[str], option: str) -> list[str]:
    """Return `argv` without an option and its value, in both spellings."""
    kept, skip = [], False
    for argument in argv:
        if not skip and argument != option and not argument.startswith(f"{option}="):
            kept.append(argument)
        skip = not skip and argument == option
    return kept
