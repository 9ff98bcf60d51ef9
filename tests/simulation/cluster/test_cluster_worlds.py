"""A cluster's world in the ordinary suite: whole batches, and what a seed stands for."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

from tests.simulation.chance import CLUSTER_FAULTS, Chance, is_cluster_seed
from tests.simulation.cluster.world import ClusterWorld
from tests.simulation.simulate import Result, simulate
from tests.simulation.world import World

ROOT = Path(__file__).parents[3]
STORY_SEED = 20
TELL = """
from tests.simulation.simulate import simulate
print('\\n'.join(simulate({seed}, cluster=True, told=True).story))
"""


@functools.cache
def first_telling() -> Result:
    return simulate(STORY_SEED, cluster=True, told=True)


def test_a_cluster_finishes_a_batch_and_breaks_no_rule() -> None:
    result = first_telling()
    assert result.violation is None
    assert result.jobs >= 10
    assert result.history.options.workers >= 2


def test_a_clusters_seed_tells_the_same_story_twice_and_under_another_hash_seed() -> None:
    here = first_telling()
    assert len(here.story) > 100
    assert {fault.point for fault in here.faults} >= {"database", "message", "life", "step"}
    assert simulate(STORY_SEED, cluster=True, told=True).story == here.story
    told = subprocess.run(
        [sys.executable, "-c", TELL.format(seed=STORY_SEED)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert tuple(told.stdout.splitlines()) == here.story


def test_every_kind_of_a_clusters_faults_is_chosen_by_some_seed() -> None:
    chances = [Chance(seed, is_cluster=True) for seed in range(60)]
    chosen = {(point, kind) for chance in chances for point in CLUSTER_FAULTS for kind in chance.kinds(point)}
    assert chosen == {(point, kind) for point, kinds in CLUSTER_FAULTS.items() for kind in kinds}


def test_the_next_run_takes_for_doubtful_what_a_dead_drivers_worker_is_about_to_send() -> None:
    """Its worker has its intent in the ledger and a lease by its own clock; Ray ends it seconds later."""
    focus = (("life", "driver killed"), ("life", "coordinator killed"), ("step", "killed"))
    assert simulate(51000890, cluster=True, focus=focus).violation is None


def test_a_log_shows_each_create_within_the_time_that_the_user_waits_for_it() -> None:
    """Where it takes longer, what was accepted is taken for refused, and bought again."""
    for seed in range(300):
        for kind in (World, ClusterWorld):
            world = kind(Chance(seed, is_cluster=kind is ClusterWorld))
            pace = world.vendor.pace
            assert pace.longest_s + pace.log_lag_s < world.options.reconcile_after


def test_some_seeds_are_clusters() -> None:
    assert 10 < sum(map(is_cluster_seed, range(100))) < 50
