"""Deliberate breaks of the rules that keep the promises: each has to be caught by some seed.

`python -m tests.simulation.mutants` (`make mutants`) runs the world with one after the other. A mutant is a
module's source with one piece of text changed, as it is imported; nothing on the disk is touched.
"""

from __future__ import annotations

import argparse
import gc
import importlib.abc
import importlib.machinery
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.simulation.mutant_list import MUTANTS, Mutant

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

ROOT: Final = Path(__file__).parents[2]
MAX_SEEDS: Final = 1500


def source_path(mutant: Mutant) -> Path:
    """Return the file that a mutant changes."""
    return ROOT / mutant.path


def changed(mutant: Mutant) -> str:
    """Return the changed source. Raises `ValueError` when the text is not there exactly once."""
    source = source_path(mutant).read_text(encoding="utf-8")
    if source.count(mutant.before) != 1:
        raise ValueError(f"{mutant.name}: its text is {source.count(mutant.before)} times in {mutant.path}")
    return source.replace(mutant.before, mutant.after)


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads the module of a mutant."""

    def __init__(self, name: str, mutant: Mutant) -> None:
        super().__init__(name, str(source_path(mutant)))
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        return compile(changed(self._mutant), self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._mutant.path.removesuffix(".py").replace("/", "."):
            return None
        return importlib.machinery.ModuleSpec(name, _Loader(name, self._mutant), origin=self._mutant.path)


def hunt(mutant: Mutant, seeds: int) -> str:
    """Run seeds against a mutant in this process until one catches it; say which, or ""."""
    sys.meta_path.insert(0, _Finder(mutant))
    from tests.simulation.simulate import simulate

    gc.freeze()
    jobs = 0
    for seed in range(seeds):
        result = simulate(seed)
        jobs += result.jobs
        if result.violation is not None:
            return f"SEED={seed}, within {jobs} jobs: {result.violation.rule}"
    return ""


def _in_a_process(mutant: Mutant, seeds: int) -> str:
    """Hunt in a process of its own, which has imported nothing of the package yet."""
    command = [sys.executable, "-m", "tests.simulation.mutants", "--one", mutant.name, "--seeds", str(seeds)]
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    found = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode in (0, 1) else f"broken: {found.stderr[-300:]}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("--one", metavar="NAME", help="hunt this one, in this process")
    parser.add_argument("--only", metavar="TEXT", default="", help="those whose name has this in it")
    parser.add_argument("--seeds", type=int, default=MAX_SEEDS, help="how many seeds at most")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.one:
        found = hunt(next(mutant for mutant in MUTANTS if mutant.name == options.one), options.seeds)
        print(found)
        return int(not found)
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    caught = 0
    with ThreadPoolExecutor(options.workers) as pool:
        for mutant, found in zip(
            chosen, pool.map(partial(_in_a_process, seeds=options.seeds), chosen), strict=True
        ):
            caught += found.startswith("SEED=")
            print(f"{mutant.name:60} {found or 'NOT CAUGHT'}", flush=True)
    print(f"{caught} of {len(chosen)} caught")
    return int(caught < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
