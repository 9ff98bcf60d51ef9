"""Where a batch lives: the folder of its ledger and log, and the place of its videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import UsageError

LEDGER_NAME: Final = "ledger.sqlite3"
LOG_NAME: Final = "run.log"
CSV_NAME: Final = "results.csv"
REPORT_NAME: Final = "report.html"


@dataclass(frozen=True, slots=True)
class Place:
    """`home` holds ledger, log and lock; `output` is where videos go: the same folder, or a URL."""

    home: Path
    output: str

    @property
    def ledger(self) -> Path:
        return self.home / LEDGER_NAME

    def show(self, name: str) -> str:
        """Return the path or URL of a file of the output, as a person would write it."""
        return f"{self.output.rstrip('/')}/{name}" if "://" in self.output else str(Path(self.output) / name)


def place_of(manifest: Path, output: str | None) -> Place:
    """Return the place of a manifest's batch: `output/<stem>` unless `--output` says otherwise.

    Raises `UsageError` when `--output` is there and says nothing.
    """
    if output is not None and not output.strip():
        raise UsageError("--output is empty: is the variable that should hold it set?")
    home = Path("output") / manifest.stem
    if output is None:
        return Place(home, str(home))
    return Place(home, output) if "://" in output else Place(Path(output), output)


def existing_place(target: str, output: str | None) -> Place:
    """Return the place of a batch that exists, from its folder or its manifest.

    Raises `UsageError` when there is no ledger there.
    """
    path = Path(target)
    if not path.is_dir():
        place = place_of(path, output)
    elif output is None or "://" in output:
        place = Place(path, output or str(path))
    else:
        raise UsageError(f"{target} is a batch's folder already: --output {output} is one too many")
    if not place.ledger.exists():
        raise UsageError(f"no batch at {place.home}: there is no {LEDGER_NAME} in it; has it been run?")
    return place
