"""The world of one seed: its time, who is alive in it, and what has gone wrong."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tests.simulation import scheduler
from tests.simulation.book import Book
from tests.simulation.chance import LOG_STOPS
from tests.simulation.command import run_command
from tests.simulation.history import LARGE_ROWS, Options
from tests.simulation.ledger import statements
from tests.simulation.machine import Killed, Machine, Process
from tests.simulation.trouble import Trouble
from tests.simulation.vendor import Pace, Vendor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.simulation.chance import Chance
    from tests.simulation.user import User

MAX_ROWS_OF_SHORT_PAGES: Final = 10
LARGE_SHARE: Final = 0.12
"""How many worlds on one machine are large, with more rows than may be in flight. Clusters took minutes."""
STEPS_AT_ONCE: Final = 1 << 30
MAX_STEPS: Final = 60_000
MAX_STEPS_A_ROW: Final = 3_000
"""A world that takes more is running in circles: 15,000 were seen for ten rows, 30,000 for thirty."""
REWRITING_STEPS_A_S: Final = 3
"""A run that rewrites its table looks each second whether that is due: two steps a second were seen. Only a
vendor who refuses everything makes it last: one that lasts by itself may still be going in circles."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that was broken, and how."""

    rule: str
    detail: str
    at: float

    def __str__(self) -> str:
        return f"{self.rule} ({self.detail}) after {self.at:.1f} s"


class World:
    """One simulated world. `story` is a list to tell what happens to, None to keep quiet.

    The seed chooses the user's options and the vendor's pace where none are given.
    """

    process_type = Process
    command = staticmethod(run_command)

    def __init__(
        self,
        chance: Chance,
        story: list[str] | None = None,
        *,
        options: Options | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.now = 0.0
        self.chance, self.story = chance, story
        chance.now = lambda: self.now
        self.folder_fds: dict[int, str] = {}
        self.users_files: dict[str, bytes] = {}
        self.violation: Violation | None = None
        self.forgetful = False
        self.lock_was_lost = self.power_was_cut = self.rewrites_table = False
        self.runs = 0
        self.refused_s = 0.0
        self.steps = self._steps_allowed = 0
        self.options = options or self.choose_options()
        self.machine = Machine(self)
        self.book = Book(self)
        self.vendor = Vendor(self, pace or choose_pace(chance, self.options))
        self.user = Process(self, Machine(self), 0)
        self.processes: list[Process] = [self.user]
        self.dead: list[Process] = []
        self._ended: dict[int, asyncio.Future[int | None]] = {}

    def choose_options(self) -> Options:
        return choose_options(self.chance)

    def max_steps(self) -> int:
        rewriting = round(REWRITING_STEPS_A_S * self.refused_s) if self.rewrites_table else 0
        return MAX_STEPS + MAX_STEPS_A_ROW * self.options.rows + rewriting

    def make_trouble(self, user: User) -> Trouble:
        return Trouble(self, user)

    def tell(self, *what: object) -> None:
        """Add a line to the story."""
        if self.story is not None:
            who = scheduler.running().number
            self.story.append(f"{self.now:12.3f}  {who:>3}  {' '.join(map(str, what))}")

    def violated(self, rule: str, detail: str) -> None:
        """A rule is broken: the world ends after this step."""
        if self.violation is None:
            self.violation = Violation(rule, detail, self.now)
            self.tell("VIOLATED", rule, detail)

    def start(
        self, main: Callable[[Process], Coroutine[Any, Any, int]], machine: Machine | None = None
    ) -> Process:
        """Start a process that runs `main`, on the user's machine unless another one is given."""
        self.runs += 1
        process = self.process_type(self, machine or self.machine, self.runs)
        self._plan_end(process, self.chance.draw("step"))
        scheduler.set_alive(process.pid, alive=True)
        self._ended[process.number] = self.user.loop.create_future()
        self.tell("STARTS", process.number)
        process.start(main(process))
        self.processes.append(process)
        return process

    def _plan_end(self, process: Process, kind: str) -> None:
        """Let a process be killed or interrupted at some step, early as often as late."""
        chance = self.chance.stream(f"steps {self.runs}")
        after = chance.randrange(1, chance.choice((100, 500, 3000)))
        if kind == "killed":
            process.die_after = after
        elif kind:
            process.interrupt_after, process.interrupts = after, 1 + (kind == "ctrl-c twice")

    async def exit_code(self, process: Process) -> int | None:
        """Wait for a process; return its exit code, None when it was killed. For the user's own tasks."""
        return await asyncio.shield(self._ended[process.number])

    def on_step(self) -> None:
        """A process is about to touch something outside: it may be the last that it does."""
        process = scheduler.running()
        if not process.alive:
            raise Killed
        if process.die_after is not None:
            process.die_after -= 1
            if process.die_after <= 0:
                process.alive = False
                raise Killed

    def kill(self, process: Process) -> None:
        """End a process where it stands; nothing of it runs any more, its destructors neither."""
        if process in self.processes:
            self.processes.remove(process)
            self.dead.append(process)
            process.alive = False
            scheduler.set_alive(process.pid, alive=False)
            self.tell("KILLED", process.number)
            self.machine.disk.crash(process)
            if self.machine.lock_holder is process:
                self.machine.lock_holder = None
            if self.machine.database is not None:
                if self.machine.database.in_transaction:
                    self.machine.database.execute("ROLLBACK")
                self.book.reload_from(self.machine.database, statements().load)
            self.book.check_table()
            self._tell_end(process, None)
            self.on_gone(process)

    def on_gone(self, process: Process) -> None:
        """A process has ended, or was killed."""

    def running_commands(self) -> list[Process]:
        return [process for process in self.processes if process is not self.user]

    def run(self, life: Coroutine[Any, Any, None]) -> None:
        """Live until the user's script is over or a rule is broken."""
        self.user.start(life)
        main = self.user.main
        while main is not None and not main.done() and self.violation is None:
            self._step()
        if main is not None and main.done() and main.exception() is not None:
            raise main.exception() or AssertionError

    def _step(self) -> None:
        ran = False
        for process in tuple(self.processes):
            loop = process.loop
            if loop.ready and process.alive and not (process.stopped or process.machine.asleep):
                self._run(process)
                ran = True
        if not ran:
            self._advance()

    def _run(self, process: Process) -> None:
        scheduler.switch_to(process)
        limit = STEPS_AT_ONCE if process.die_after is None else process.die_after
        try:
            steps = process.loop.run_tick(limit)
        except Killed:
            steps, process.alive = 0, False
        self.steps += steps
        if self.steps > self._steps_allowed:
            self._allow_steps()
        if process.die_after is not None:
            process.die_after -= steps
        if process.interrupt_after is not None:
            process.interrupt_after -= steps
            if process.interrupt_after <= 0:
                process.interrupt()
                process.interrupts -= 1
                process.interrupt_after = 50 if process.interrupts else None
        if not process.alive or (process.die_after is not None and process.die_after <= 0):
            self.kill(process)
        elif process.main is not None and process.main.done() and process is not self.user:
            self._finish(process, process.main)

    def _allow_steps(self) -> None:
        self._steps_allowed = self.max_steps()  # it only grows
        if self.steps > self._steps_allowed:
            self.violated("the run goes in circles", f"{self.steps} steps")

    def _finish(self, process: Process, main: asyncio.Task[Any]) -> None:
        self.processes.remove(process)
        self.dead.append(process)
        self.machine.disk.crash(process)
        process.alive = False
        scheduler.set_alive(process.pid, alive=False)
        if (error := main.exception()) is not None:
            import traceback

            self.violated("the command crashed", "".join(traceback.format_exception(error)))
            return
        self.tell("EXITS", main.result())
        self._tell_end(process, main.result())
        self.on_gone(process)

    def _tell_end(self, process: Process, code: int | None) -> None:
        process.ended_at = self.now
        future = self._ended[process.number]
        if not future.done():
            future.set_result(code)

    def _advance(self) -> None:
        """Let time pass to the next thing that can happen."""
        running = [p for p in self.processes if not (p.stopped or p.machine.asleep)]
        soonest = math.inf
        for process in running:
            when = process.loop.next_timer()
            if when is not None and when + process.machine.suspended_s < soonest:
                soonest = when + process.machine.suspended_s
        if soonest == math.inf:
            self.violated("nothing can happen any more", "every task waits for another")
        # A suspended machine's clock is reckoned from the world's: rounding must not stop both.
        self.now = max(math.nextafter(self.now, math.inf), soonest)
        for process in running:
            process.loop.release_due(process.machine.monotonic())


def choose_options(chance: Chance) -> Options:
    rng = chance.stream("options")
    rows = rng.choice((3, 3, 3, 10) if chance.is_focused else (3, 10, 30, 60))
    rows = choose_large(chance) or rows
    return Options(
        rows=rows,
        concurrency=rng.choice((2, 4, 20, 20)),
        max_cost=rng.choice((None, None, 1.2 * rows + 12.0, 1.2 * rng.randrange(1, rows + 2) + 0.01)),
        reconcile_after=rng.choice((300.0, 300.0, 600.0, 2700.0)),
        generation_retries=rng.choice((0, 1, 3)),
        timeout=rng.choice((1800.0, 1800.0, 1800.0, 60.0)),
    )


def choose_large(chance: Chance) -> int:
    """Return how many rows a large world has, 0 for a small one."""
    size = chance.stream("size")
    return size.choice(LARGE_ROWS) if size.random() < LARGE_SHARE and not chance.is_cluster else 0


def choose_pace(chance: Chance, options: Options) -> Pace:
    """Return a vendor whose renderings and log are as fast as `reconcile_after` allows for."""
    rng = chance.stream("pace")
    slowest_s = 0.6 * options.reconcile_after
    longest_s = min(rng.choice((15.0, 15.0, 60.0, slowest_s)), slowest_s)
    pace = Pace(
        shortest_s=5.0,
        longest_s=longest_s,
        log_lag_s=rng.choice((1.0, 0.3 * options.reconcile_after)),
        limit=rng.choice((2, 10, 10, 100)),
        failing=rng.choice((0.0, 0.05, 0.3)),
        refusing=rng.choice((0.0, 0.05)),
        pairs=rng.choice((0.03, 0.03, 0.5)),
        # Pages of three rows for a log of hundreds would be most of what such a world does.
        page_rows=rng.choice((3 if options.rows <= MAX_ROWS_OF_SHORT_PAGES else 20, 1000)),
        charges=rng.choice(("offered", "offered", "not offered")),
        log_allowed=rng.random() >= 0.05,
    )
    # Without a second source nothing could tell that a log has stopped (`docs/explanation/paid-once.md`).
    return replace(pace, charges="offered") if LOG_STOPS in chance.kinds("life") else pace
