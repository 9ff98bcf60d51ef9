"""An engine with everything real around it: ledger, sockets, files, and the sandbox as its vendor."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import anyio

from pipeline.client import Api, ApiKey, key_id
from pipeline.download.downloader import Downloader
from pipeline.download.retry_state import DownloadLimits
from pipeline.engine import Engine
from pipeline.ledger import Ledger
from pipeline.model import Job, Record, State
from pipeline.plan import new_record
from pipeline.poll.learner import DurationLearner
from pipeline.poll.poll_rate import AdaptiveRateLimit
from pipeline.poll.schedule import PollSchedule
from pipeline.run_context import Dependencies
from pipeline.run_state import RunState
from pipeline.sandbox import Fault, Sandbox, SandboxOptions, SandboxState
from pipeline.settings import Settings
from pipeline.storage import LocalStore
from pipeline.submit.budget import Budget
from pipeline.submit.create_limits import AdaptiveConcurrencyLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from pipeline.events import Event
    from pipeline.run_state import RunOutcome

MODEL = "google/veo-3.1-i2v-fast"
PRICE_USD = 0.4
"""A 4 s clip at 720p in the sandbox."""

FAST_DOWNLOAD_LIMITS = DownloadLimits(
    max_attempts=8, max_unreachable_s=0.3, initial_backoff_s=0.01, max_backoff_s=0.05, stall_window_s=1.0
)


def fast_sandbox_options(**options: Any) -> SandboxOptions:
    """A vendor whose generations take a tenth of a second."""
    usual = {"durations": "fixed:10", "speed": 100.0, "video": "small", "log_lag_s": 0.0}
    return SandboxOptions(**{**usual, **options})


def make_record(index: int, prompt: str = "") -> Record:
    words = prompt or f"clip number {index}."
    body = {
        "model": MODEL,
        "prompt": words,
        "image_url": "https://example.com/a.jpg",
        "duration": 4,
        "resolution": "720p",
    }
    return new_record(Job(f"row-{index}", f"f{index}", index, MODEL, body, line=index + 1), f"row-{index}")


@dataclass
class RecordingObserver:
    """Sees all that a run tells, and acts when the test wants it to."""

    events: list[Event] = field(default_factory=list)
    transitions: list[tuple[State, Record]] = field(default_factory=list)
    transition_callback: Callable[[Record], None] = lambda _: None

    def on_transition(self, before: Record, after: Record) -> None:
        self.transitions.append((before.state, after))
        self.transition_callback(after)

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def messages_text(self) -> str:
        return "\n".join(event.message for event in self.events)

    def count_entered(self, state: State) -> int:
        """How often a row has come into a state."""
        return sum(after.state is state and before is not state for before, after in self.transitions)


class EngineHarness:
    """One folder, one ledger, one vendor; each `run` is a start of the engine over them."""

    def __init__(self, folder: Path, options: SandboxOptions | None = None, *faults: Fault) -> None:
        self.folder = folder
        self.sandbox = Sandbox(options or fast_sandbox_options())
        for fault in faults:
            self.sandbox.add_fault(fault)
        self.observer = RecordingObserver()
        self.download_limits = FAST_DOWNLOAD_LIMITS
        self.downloader_type: type[Downloader] = Downloader
        self.schedule_type: type[PollSchedule] = PollSchedule
        self.price_of: Callable[[Record], float | None] = lambda _: None
        self.key = ApiKey("any-key", "AIML_API_KEY")
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.sandbox)
        self.ledger = await self._stack.enter_async_context(await Ledger.open(self.folder / "ledger.sqlite3"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def sandbox_state(self) -> SandboxState:
        return self.sandbox.state

    def sent_facts(self) -> dict[str, str]:
        """What a record keeps of a submission that this house's key has sent."""
        return {"key_id": key_id(self.key.secret, self.ledger.identity), "api_url": self.sandbox.url}

    async def add(self, rows: int | Sequence[Record]) -> list[Record]:
        records = [make_record(index) for index in range(rows)] if isinstance(rows, int) else list(rows)
        await self.ledger.add(records)
        return records

    def engine(self, api: Api, records: Sequence[Record], budget: Budget, **settings: Any) -> Engine:
        chosen = Settings(**{"poll_interval": 0.1, "media": False, "concurrency": 4, **settings})
        chance, interval = random.Random(5), chosen.poll_interval
        tools = Dependencies(
            api=api,
            ledger=self.ledger,
            downloader=self.downloader_type(
                session=api.keyless_session,
                store=LocalStore(self.folder),
                limits=self.download_limits,
                media=chosen.media,
            ),
            schedule=self.schedule_type(DurationLearner(interval), interval_s=interval, random=chance),
            concurrency_limit=AdaptiveConcurrencyLimit(
                chosen.concurrency, interval_s=interval, random=chance
            ),
            rate_limit=AdaptiveRateLimit(interval_s=interval),
            journal_submission=lambda _: None,
            budget=budget,
            price_of=self.price_of,
            clock=time.monotonic,
            wall=time.time,
            random=chance,
        )
        return Engine(RunState.from_records(records), tools, chosen, self.observer)

    async def run(
        self,
        rows: int | Sequence[Record] | None = None,
        *,
        known: Sequence[Record] | None = None,
        on_start: Callable[[Engine], Any] | None = None,
        max_cost: float | None = None,
        within_s: float = 600.0,
        check: bool = True,
        **settings: Any,
    ) -> RunOutcome:
        """Start the engine over new `rows`, over what the ledger holds, or over what is `known` of it.

        `during` is given the engine before it starts. Checks afterwards what is always true.
        """
        records = known if known is not None else []
        if known is None:
            records = await self.ledger.load() if rows is None else await self.add(rows)
        timeout_s = settings.get("request_timeout", 20.0)
        async with Api(self.sandbox.url, self.key, timeout_s=timeout_s) as api:
            prices = {record.key: self.price_of(record) for record in records}
            budget = Budget(max_cost, await self.ledger.submissions(), prices.get)
            engine = self.engine(api, records, budget, **settings)
            if on_start is not None:
                on_start(engine)
            with anyio.fail_after(within_s):
                outcome = await engine.run()
        if check:
            await self._check(outcome)
        return outcome

    async def _check(self, outcome: RunOutcome) -> None:
        """The outcome is what the ledger holds, nothing was paid twice, and no key reached the CDN."""
        kept = {record.key: record for record in await self.ledger.load()}
        for record in outcome.records:
            held = kept[record.key]
            assert (record.state, record.version) == (held.state, held.version)
            if record.state is State.DONE:
                assert record.artifact is not None
                path = self.folder / record.artifact.path
                assert record.artifact.moved or path.stat().st_size == record.artifact.size_bytes
        assert self.sandbox_state.leaked_keys == []
        paid_twice = Counter(
            made.correlation_id for made in self.sandbox_state.generations if made.correlation_id
        )
        assert max(paid_twice.values(), default=1) == 1

    def finish_renders_now(self) -> None:
        """Whatever renders is finished now, and what is created from now on takes a tenth of a second."""
        self.sandbox._service._sample_duration_s = lambda _: 10.0
        for made in self.sandbox_state.generations:
            made.render_s = min(made.render_s, time.time() - made.created_at)
        numbers = [number for _, number in self.sandbox_state._render_ends]
        self.sandbox_state._render_ends[:] = sorted(
            (found.finishes_at, one)
            for one in numbers
            if (found := self.sandbox_state.find_by_number(one)) is not None
        )

    def count_paid(self) -> int:
        """How many generations the vendor charged for, or will."""
        return sum(not made.fails for made in self.sandbox_state.generations)


def count_states(outcome: RunOutcome) -> Counter[State]:
    return Counter(record.state for record in outcome.records)
