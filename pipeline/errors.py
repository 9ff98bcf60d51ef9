"""What can stop a run, each class named for what its caller does about it.

What goes wrong with one job is a value (`model.Failure`); only what stops a run is an exception. Foreign
exceptions are translated into these once, at the edge where they arise, with `from`.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """The exit codes other people's scripts rely on. 70 is EX_SOFTWARE: a bug of ours."""

    DONE = 0
    SOME_FAILED = 1
    USAGE = 2
    RESUMABLE = 3
    CRASH = 70
    INTERRUPTED = 130
    TERMINATED = 143


class StopReason(StrEnum):
    """Why a run stopped submitting before it had submitted everything."""

    CREDITS = "credits"
    KEY = "key"
    MODEL = "model"
    QUOTA = "quota"
    BUDGET = "budget"
    DEADLINE = "deadline"
    UNFINISHED = "unfinished"
    DISK = "disk"
    LEDGER = "ledger"
    IN_DOUBT = "in_doubt"
    UNREACHABLE = "unreachable"
    IMAGE_STORE = "image_store"
    CRASH = "crash"
    INTERRUPTED = "interrupted"


class VeobatchError(Exception):
    """Root of everything this package raises on purpose."""

    exit_code: ExitCode = ExitCode.USAGE


class UsageError(VeobatchError):
    """The command or its surroundings are wrong: say what to change, exit 2."""


class ManifestError(VeobatchError):
    """The manifest is wrong; the message holds every problem, one a line, each with its place."""


class StopRun(VeobatchError):
    """The run cannot go on but can be continued: keep what is paid, say what to do, exit 3."""

    exit_code = ExitCode.RESUMABLE

    def __init__(self, reason: StopReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BatchLocked(StopRun):
    """Another process holds this output folder."""

    def __init__(self, message: str) -> None:
        super().__init__(StopReason.LEDGER, message)


class StoreError(StopRun):
    """The place where videos go is full, read-only or gone; no fault of any one job."""

    def __init__(self, message: str) -> None:
        super().__init__(StopReason.DISK, message)


class LedgerError(StopRun):
    """The ledger is damaged, from a newer version, or cannot be written."""

    def __init__(self, message: str) -> None:
        super().__init__(StopReason.LEDGER, message)


class Conflict(VeobatchError):
    """Someone else moved the record first: drop this transition, read the record again."""

    def __init__(self, key: str, message: str = "the record was changed by someone else") -> None:
        super().__init__(f"{key}: {message}")
        self.key = key


class GenerationTaken(Conflict):
    """The generation is another create's: two must not share one clip, since each was billed."""

    def __init__(self, key: str, generation_id: str) -> None:
        super().__init__(key, f"generation {generation_id} is another create's")
        self.generation_id = generation_id
