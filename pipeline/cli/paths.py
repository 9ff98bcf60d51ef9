"""Where a batch lives: the folder of its log, the place of its videos, and the ledger that knows of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import UsageError

LEDGER_NAME: Final = "ledger.sqlite3"
DEFAULT_BATCH: Final = "default"
"""The name of the one batch in a folder's own ledger."""


@dataclass(frozen=True, slots=True)
class LedgerChoice:
    """What `--ledger` and `--batch` say: a path or a database's URL, and the batch's name in it."""

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
    """`home` holds log and lock; `output` is where videos go: the same folder, or a URL.

    The ledger is a file in `home`, unless `elsewhere` says otherwise: a path, or a database's URL with all
    that stands in it. `batch` is the batch's name in the ledger.
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
    manifest: Path, output: str | None, ledger_choice: LedgerChoice = DEFAULT_LEDGER_CHOICE
) -> BatchPaths:
    """Return the place of a manifest's batch: `output/<stem>` unless `--output` says otherwise.

    Raises `UsageError` when `--output` is there and says nothing, and for a batch's name without a ledger
    to look for it.
    """
    if output is not None and not output.strip():
        raise UsageError("--output is empty: is the variable that should hold it set?")
    home = Path("output") / manifest.stem
    ledger, batch = ledger_choice.resolve(manifest.stem)
    if output is None:
        return BatchPaths(home, str(home), ledger, batch)
    local = "://" not in output
    return BatchPaths(Path(output) if local else home, output, ledger, batch)


def existing_batch_paths(
    target: str, output: str | None, ledger_choice: LedgerChoice = DEFAULT_LEDGER_CHOICE
) -> BatchPaths:
    """Return the place of a batch that exists, from its folder or its manifest.

    Raises `UsageError` when there is no ledger there; one that is elsewhere is not looked at.
    """
    path = Path(target)
    if not path.is_dir():
        paths = batch_paths(path, output, ledger_choice)
    elif output is None or "://" in output:
        ledger, batch = ledger_choice.resolve(path.resolve().name)
        paths = BatchPaths(path, output or str(path), ledger, batch)
    else:
        raise UsageError(f"{target} is a batch's folder already: --output {output} is one too many")
    if not paths.external_ledger and not (paths.folder / LEDGER_NAME).exists():
        raise UsageError(f"no batch at {paths.folder}: there is no {LEDGER_NAME} in it; has it been run?")
    return paths
