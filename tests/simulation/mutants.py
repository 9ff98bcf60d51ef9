"""Deliberate breaks of the rules that keep the promises: each has to be caught by some history or seed.

`python -m tests.simulation.mutants` (`make mutants`) lives through the world with one after the other: first
the history that was kept for it (`corpus.jsonl`), else, or with `--hunt`, new seeds. A mutant changes the
functions and constants of the module in this process for as long as it is tried; nothing on the disk is
touched.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.__main__ import prepare_process
from tests.simulation.cluster.server import compile_statements
from tests.simulation.history import load_corpus, write_corpus
from tests.simulation.ledger import statements
from tests.simulation.mutant_list import MUTANTS, Mutant
from tests.simulation.shrink import shrink
from tests.simulation.simulate import replay, simulate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.history import History
    from tests.simulation.simulate import Result

ROOT: Final = Path(__file__).parents[2]
MAX_SEEDS: Final = 1500
MAX_JOBS: Final = 1_000_000
KEPT_TRIES: Final = 12
FEW_FAULTS: Final = 4
CONSTANTS: Final = (frozenset, tuple, str, int, float)


@dataclass(frozen=True, slots=True)
class Catch:
    """How a mutant was caught: within how many jobs, and by which seed, or the history made from it."""

    rule: str
    seed: int
    jobs: int
    history: History | None = None

    def __str__(self) -> str:
        return f"SEED={self.seed}, within {self.jobs} jobs: {self.rule}"


def source_path(mutant: Mutant) -> Path:
    """Return the file that a mutant changes."""
    return ROOT / mutant.path


def changed(mutant: Mutant) -> str:
    """Return the changed source. Raises `ValueError` when the text is not there exactly once."""
    source = source_path(mutant).read_text(encoding="utf-8")
    if source.count(mutant.before) != 1:
        raise ValueError(f"{mutant.name}: its text is {source.count(mutant.before)} times in {mutant.path}")
    return source.replace(mutant.before, mutant.after)


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Let the module be the changed one while the body runs: its functions' code, and its constants."""
    module = importlib.import_module(mutant.path.removesuffix(".py").replace("/", "."))
    plain = _executed(module, source_path(mutant).read_text(encoding="utf-8"))
    broken = _executed(module, changed(mutant))
    undo = [*_swap_functions(module, broken), *_swap_constants(module, plain, broken)]
    _forget_statements()
    try:
        yield
    finally:
        for target, name, value in undo:
            setattr(target, name, value)
        _forget_statements()


def _forget_statements() -> None:
    statements.cache_clear()
    compile_statements.cache_clear()


def _executed(module: ModuleType, source: str) -> ModuleType:
    """Return a module that is like `module` but for its source; nobody imports it."""
    made = ModuleType(module.__name__)
    made.__package__, made.__file__ = module.__package__, module.__file__
    exec(compile(source, str(module.__file__), "exec", dont_inherit=True), made.__dict__)  # noqa: S102  # our own source
    return made


def _swap_functions(module: ModuleType, broken: ModuleType) -> Iterator[tuple[Any, str, Any]]:
    """Give each function the code of its changed twin; yield what undoes that."""
    twins = dict(_functions(broken, broken.__name__))
    for name, function in _functions(module, module.__name__):
        twin = twins.get(name)
        if twin is not None and twin.__code__ != function.__code__:
            yield function, "__code__", function.__code__
            function.__code__ = twin.__code__


def _functions(owner: Any, module_name: str) -> Iterator[tuple[str, FunctionType]]:
    """Yield the functions and methods that are written in a module, by their full names."""
    for value in list(vars(owner).values()):
        inner = inspect.unwrap(getattr(value, "fget", None) or getattr(value, "__func__", value))
        if getattr(inner, "__module__", None) != module_name:
            continue
        if isinstance(inner, FunctionType):
            yield inner.__qualname__, inner
        elif isinstance(inner, type) and inner is not owner:
            yield from _functions(inner, module_name)


def _swap_constants(
    module: ModuleType, plain: ModuleType, broken: ModuleType
) -> Iterator[tuple[Any, str, Any]]:
    """Change constants in the module, and where it was imported from; yield what undoes that."""
    for name, value in vars(broken).items():
        before = vars(plain).get(name)
        if name.startswith("__") or not isinstance(value, CONSTANTS) or repr(value) == repr(before):
            continue
        own = getattr(module, name)
        for user in [m for m in sys.modules.values() if getattr(m, name, None) is own]:
            yield user, name, own
            setattr(user, name, value)


def hunt(mutant: Mutant, seeds: int, max_jobs: int, *, aided: bool) -> Catch | None:
    """Return the first seed that catches a mutant; `aided`, they strike with its own faults alone."""
    jobs = 0
    with applied(mutant):
        for seed in range(seeds):
            focus = mutant.focus if aided else ()
            result = simulate(seed, focus=focus, cluster=mutant.cluster if aided else None)
            jobs += result.jobs
            if result.violation is not None:
                return _caught(result, jobs)
            if jobs >= max_jobs:
                break
    return None


def by_history(mutant: Mutant) -> Catch | None:
    """Say whether the history that was kept for a mutant catches it."""
    history = load_corpus().get(mutant.name)
    if history is None:
        return None
    with applied(mutant):
        result = replay(history)
    return None if result.violation is None else replace(_caught(result, result.jobs), history=history)


def _caught(result: Result, jobs: int) -> Catch:
    rule = "" if result.violation is None else result.violation.rule
    return Catch(rule, result.seed, jobs)


def keep(mutant: Mutant, seeds: int) -> Catch | None:
    """Hunt a mutant; return the catch with a history that breaks a rule with it and none without."""
    jobs = 0
    for seed in range(seeds):
        with applied(mutant):
            result = simulate(seed, focus=mutant.focus, cluster=mutant.cluster)
            jobs += result.jobs
            if result.violation is None:
                continue
            history = (shrink(result, KEPT_TRIES) if len(result.faults) > FEW_FAULTS else result).history
            again = replay(history)
        if again.violation is not None and replay(history).violation is None:
            return replace(_caught(again, jobs), history=history)
    return None


def try_one(mutant: Mutant, *, options: argparse.Namespace) -> Catch | None:
    """Try one mutant, in any process."""
    found = None if options.hunt else by_history(mutant)
    if found is not None:
        return found
    if options.keep:
        return keep(mutant, options.seeds)
    return hunt(mutant, options.seeds, options.jobs, aided=not options.unaided)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", default="", help="those whose name has this in it")
    parser.add_argument("--hunt", action="store_true", help="by new seeds, though a history was kept")
    parser.add_argument("--unaided", action="store_true", help="hunt by seeds that choose among all faults")
    parser.add_argument("--jobs", type=int, default=MAX_JOBS, help="how many jobs at most")
    parser.add_argument("--keep", action="store_true", help="keep the history of what is caught by a seed")
    parser.add_argument("--seeds", type=int, default=MAX_SEEDS, help="how many seeds at most")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    corpus, caught = dict(load_corpus()), 0
    attempt = partial(try_one, options=options)
    with ProcessPoolExecutor(options.workers, initializer=prepare_process) as pool:
        for mutant, found in zip(chosen, pool.map(attempt, chosen), strict=True):
            caught += found is not None
            print(f"{mutant.name:60} {found or 'NOT CAUGHT'}", flush=True)
            if options.keep and found is not None and found.history is not None:
                corpus[mutant.name] = found.history
                write_corpus(corpus)
    print(f"{caught} of {len(chosen)} caught")
    return int(caught < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
