"""What was said to be committed is there, whoever dies and whenever; no two make the same step."""

from __future__ import annotations

import random
import signal
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from pipeline.ledger import Ledger
from pipeline.model import State
from tests.crash.batches import wait_until
from tests.integration.ledger_servers import ledger_location, make_record, read_history, start_program

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

N_ROWS = 16
N_KILLS = 5


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return ledger_location(request.param, tmp_path)


async def _fill(where: str) -> None:
    async with await Ledger.open(where) as ledger:
        await ledger.add([make_record(f"r{n}", n) for n in range(N_ROWS)])


@pytest.mark.crash
async def test_what_was_committed_outlives_kill_9(where: str) -> None:
    await _fill(where)
    said: dict[str, int] = {}
    for _ in range(N_KILLS):
        _kill_after(start_program("commit_for_ever", where), random.randint(1, 2000), said)
        await wait_until(lambda: _connection_is_gone(where))
        async with await Ledger.open(where) as ledger:
            for record in await ledger.load():
                assert record.version >= said.get(record.key, 0)
                # What the killed process did not live to say it may have done: once for each row.
                assert record.version <= said.get(record.key, 0) + 1
                said[record.key] = record.version
                assert record.submission_no == record.version
                assert record.state is (State.SUBMITTING if record.version % 2 else State.PENDING)
                lines = await read_history(ledger, record.key)
                assert [line.version for line in lines] == list(range(1, record.version + 1))
    assert sum(said.values()) > N_KILLS


def _connection_is_gone(where: str) -> bool:
    """Whether a server has noticed that its client is dead, and is done with its last step."""
    if "://" not in where:
        return True
    clients = "SELECT datname FROM pg_stat_activity WHERE application_name LIKE 'veobatch%'"
    with psycopg.connect(where) as connection:
        return (connection.info.dbname,) not in connection.execute(clients).fetchall()


def _kill_after(child: subprocess.Popen[str], n_lines: int, acknowledged: dict[str, int]) -> None:
    """Kill the child at a moment around its `n_lines`th step, and note all that it had said."""
    with child:
        assert child.stdout is not None
        for n, line in enumerate(child.stdout):
            key, version = line.split()
            acknowledged[key] = int(version)
            if n == n_lines:
                child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


@pytest.mark.crash
async def test_of_two_processes_exactly_one_makes_each_step(where: str) -> None:
    await _fill(where)
    until = 15
    won: list[list[str]] = [[], []]
    children = [start_program("contend", where, str(until)) for _ in won]
    readers = [
        threading.Thread(target=lambda child=child, steps=steps: steps.extend(child.stdout))
        for child, steps in zip(children, won, strict=True)
    ]
    for reader in readers:
        reader.start()
    for child, reader in zip(children, readers, strict=True):
        with child:
            reader.join()
        assert child.returncode == 0
    assert sorted(won[0] + won[1]) == sorted(
        f"r{n}@f00d {version}\n" for n in range(N_ROWS) for version in range(1, until + 1)
    )
