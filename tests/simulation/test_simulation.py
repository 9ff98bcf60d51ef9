"""The simulated world in the ordinary suite: seeds that once broke a rule, and what a seed stands for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.chance import FAULTS, LOG_STOPS, NO_CHARGES, Chance
from tests.simulation.history import CORPUS as CORPUS_FILE
from tests.simulation.history import load_corpus
from tests.simulation.mutant_list import MUTANTS
from tests.simulation.mutants import applied
from tests.simulation.shrink import shrink
from tests.simulation.simulate import replay, simulate
from tests.simulation.world import World, choose_options, choose_pace

ROOT = Path(__file__).parents[2]

CORPUS = load_corpus()

STORY_SEED = 137
THREE_DOUBTS = "an interrupted create is sent again"
"""In this history one pass settles three rows: in their order, or in that of a set of texts."""

TELL = """
from tests.simulation.test_simulation import tell
print('\\n'.join(tell()))
"""


def tell() -> list[str]:
    """Tell of a seed in which much goes wrong, and of a history in which rows could change places."""
    return [*simulate(STORY_SEED, told=True).story, *replay(CORPUS[THREE_DOUBTS], told=True).story]


@pytest.mark.parametrize("name", CORPUS)
def test_a_history_that_once_broke_a_rule_breaks_one_only_when_its_mend_is_undone(name: str) -> None:
    with applied(next(mutant for mutant in MUTANTS if mutant.name == name)):
        assert replay(CORPUS[name]).violation is not None
    assert replay(CORPUS[name]).violation is None


def test_a_seed_tells_the_same_story_twice_and_under_another_hash_seed() -> None:
    """Byte for byte, although sets of text are in another order there."""
    here = tell()
    assert len(here) > 100
    assert tell() == here
    for hash_seed in ("1", "4711"):
        environ = {**os.environ, "PYTHONHASHSEED": hash_seed}
        told = subprocess.run(
            [sys.executable, "-c", TELL], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
        )
        assert told.stdout.splitlines() == here


def test_there_are_fifty_mutants_of_different_names() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 50


def test_every_mutant_has_a_history_that_catches_it() -> None:
    assert set(CORPUS) == {mutant.name for mutant in MUTANTS}


def test_a_history_is_the_same_after_it_was_written_and_read() -> None:
    lines = CORPUS_FILE.read_text(encoding="utf-8").splitlines()
    assert [history.to_json(name) for name, history in CORPUS.items()] == lines


def test_leaving_out_a_fault_moves_no_other() -> None:
    chance, other = Chance(8), Chance(8)
    drawn = [chance.draw("create") for _ in range(400)]
    assert any(drawn)
    first = chance.struck[0]
    without = Chance(8, skipped=frozenset({first}))
    assert [kind for kind in (without.draw("create") for _ in range(400)) if kind] == [
        fault.kind for fault in chance.struck[1:]
    ]
    assert [other.draw("create") for _ in range(400)] == drawn


def test_every_kind_of_fault_is_chosen_by_some_seed() -> None:
    chosen = {(point, kind) for seed in range(40) for point in FAULTS for kind in Chance(seed).kinds(point)}
    assert chosen == {(point, kind) for point, kinds in FAULTS.items() for kind in kinds}


@pytest.mark.parametrize("seed", [30000057, 30000122, 30000549, 30001548])
def test_what_no_source_settles_is_the_users_to_decide(seed: int) -> None:
    """A charge under another key, a log that stopped, a doubt of days, an id whose row was forgotten."""
    assert simulate(seed).violation is None


def test_a_run_that_is_refused_for_a_day_and_looks_each_second_goes_in_no_circles() -> None:
    world = World(Chance(1))
    least, world.now, world.refused_s = world.max_steps(), 2 * 86_400.0, 86_400.0
    assert world.max_steps() == least
    world.rewrites_table = True
    assert world.max_steps() == least + 3 * 86_400


def test_no_world_has_a_log_that_stops_and_no_charges() -> None:
    """Nothing could tell such a log from a create that was never accepted."""
    chances = [Chance(seed) for seed in range(200)]
    stops = [chance for chance in chances if LOG_STOPS in chance.kinds("life")]
    others = [chance for chance in chances if chance not in stops]
    lacking = [c for c in others if choose_pace(c, choose_options(c)).charges == "not offered"]
    assert stops
    assert lacking
    assert {choose_pace(chance, choose_options(chance)).charges for chance in stops} == {"offered"}
    assert not any(NO_CHARGES in chance.kinds("transactions") for chance in stops)


def test_the_shrinker_drops_what_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that a kill breaks, and nothing else does, is left with the kill."""
    kill = World.kill

    def kill_and_tell(self: World, process: object) -> None:
        kill(self, process)  # type: ignore[arg-type]
        self.violated("something was killed", "")

    monkeypatch.setattr(World, "kill", kill_and_tell)
    found = next(
        result
        for result in (simulate(seed, focus=(("life", "killed"), ("status", "reset"))) for seed in range(100))
        if result.violation is not None and len(result.faults) > 5
    )
    fewest = shrink(found)
    assert fewest.violation is not None
    assert fewest.violation.rule == "something was killed"
    assert 1 <= len(fewest.faults) < len(found.faults)
