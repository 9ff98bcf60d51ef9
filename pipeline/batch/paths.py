"""Where a batch lives: the folder of its log, the place of its videos, and its ledger."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import UsageError

LEDGER_NAME: Final = "ledger.sqlite3"
DEFAULT_BATCH: Final = "default"
"""The name of the one batch in a folder's own ledger."""

SANDBOX_SUFFIX: Final = ".sandbox"


@dataclass(frozen=True, slots=True)
class LedgerChoice:
    """What `--ledger` and `--batch` name: a path or a database's URL, and the batch in it."""

    ledger: str | None = None
    batch: str | None = None

    def resolve(self, name: str) -> tuple[str, str]:
        """Return the ledger (empty: the folder's own) and the batch, which is `name` unless chosen."""
        if self.ledger:
            return self.ledger, self.batch or name
        if self.batch:
            raise UsageError("--batch chooses among the batches of a ledger: give --ledger too")
        return "", DEFAULT_BATCH


DEFAULT_LEDGER_CHOICE: Final = LedgerChoice()


@dataclass(frozen=True, slots=True)
class BatchPaths:
    """`folder` holds log and lock; `output` is where videos go: the same folder, or a URL.

    The ledger is a file in `folder`, unless `external_ledger` names a path or a database's URL (password
    included). `batch` is the batch's name in the ledger.
    """

    folder: Path
    output: str
    external_ledger: str = ""
    batch: str = DEFAULT_BATCH

    @property
    def ledger(self) -> str | Path:
        return self.external_ledger or self.folder / LEDGER_NAME

    def output_path(self, name: str) -> str:
        """Return the path or URL of a file of the output, as a person would write it."""
        return f"{self.output.rstrip('/')}/{name}" if "://" in self.output else str(Path(self.output) / name)


def batch_paths(
    manifest: Path,
    output: str | None,
    ledger_choice: LedgerChoice = DEFAULT_LEDGER_CHOICE,
    *,
    sandbox: bool = False,
) -> BatchPaths:
    """Return where a manifest's batch lives: `output/<stem>` unless `--output` names another place.

    A rehearsal in the sandbox has a folder, and in a shared ledger a batch, of its own: `<stem>.sandbox`.
    Raises `UsageError` for `--batch` without `--ledger`.
    """
    name = manifest.stem + (SANDBOX_SUFFIX if sandbox else "")
    folder = Path("output") / name
    ledger, batch = ledger_choice.resolve(name)
    if output is None:
        return BatchPaths(folder, str(folder), ledger, batch)
    return BatchPaths(folder if "://" in output else Path(output), output, ledger, batch)


def existing_batch_paths(
    target: str, output: str | None, ledger_choice: LedgerChoice = DEFAULT_LEDGER_CHOICE
) -> BatchPaths:
    """Return where a batch lives that has been run, given its folder or its manifest.

    For a manifest that was only rehearsed this is the rehearsal's folder. Raises `UsageError` when there is
    no ledger; one outside the folder is not checked.
    """
    path = Path(target)
    if not path.is_dir():
        paths = batch_paths(path, output, ledger_choice)
        if not has_batch(paths) and output is None:
            rehearsal = batch_paths(path, output, ledger_choice, sandbox=True)
            paths = rehearsal if has_batch(rehearsal) else paths
    elif output is None or "://" in output:
        ledger, batch = ledger_choice.resolve(path.resolve().name)
        paths = BatchPaths(path, output or str(path), ledger, batch)
    else:
        raise UsageError(f"{target} is already a batch's folder: leave out --output {output}")
    if not has_batch(paths):
        raise UsageError(f"no batch at {paths.folder}: there is no {LEDGER_NAME} in it; has it been run?")
    return paths


def has_batch(paths: BatchPaths) -> bool:
    """Return whether a batch is known to be there; a ledger elsewhere is taken to have it."""
    return bool(paths.external_ledger) or (paths.folder / LEDGER_NAME).exists()
