"""The types that callers of the package rely on. `make types` checks this file; nothing in it is called.

A line that is wrong on purpose carries its error code: mypy reports it once the error is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, assert_never, assert_type

from pipeline import Batch, Estimate, Event, Results, Row, RowChanged, run
from pipeline.client import (
    Accepted,
    AccountBlocked,
    Api,
    CreateResult,
    GenerationStatus,
    KeyInfo,
    LogPage,
    LogRow,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    RetryableRejection,
    StatusError,
    TransactionPage,
)
from pipeline.errors import Conflict, ExitCode, StopReason, StopRun
from pipeline.manifest import Manifest, ManifestProblems, Problem, load
from pipeline.model import Failure, Job, Record, State, Transition
from pipeline.run_state import RunOutcome
from pipeline.settings import Settings, resolve

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.engine import Engine
    from pipeline.ledger import Ledger


def manifest_types(path: Path) -> None:
    manifest = load(path)
    assert_type(manifest, Manifest)
    assert_type(manifest.jobs, Sequence[Job])
    assert_type(manifest.run, Mapping[str, Any])
    assert_type(manifest.warnings, tuple[Problem, ...])
    assert_type(manifest.models, frozenset[str])
    manifest.path = path  # type: ignore[misc]


def problem_types(found: ManifestProblems) -> None:
    assert_type(found.problems, tuple[Problem, ...])
    assert_type((found.problems[0].line, found.problems[0].column), tuple[int, int])
    assert_type(found.exit_code, ExitCode)


def settings_types(settings: Settings) -> None:
    assert_type(resolve([("flags", {"concurrency": 3})]), Settings)
    assert_type(settings.concurrency, int)
    assert_type(settings.max_cost, float | None)


async def create_types(api: Api) -> str:
    """Every result of a create is handled: a new one is an error here."""
    result = await api.create("{}", "id")
    assert_type(result, CreateResult)
    match result:
        case Accepted(generation_id=generation_id, generation_status=status):
            assert_type(status, GenerationStatus)
            return assert_type(generation_id, str)
        case Rejected(failure=failure):
            return assert_type(failure, Failure).message
        case AccountBlocked(reason=reason):
            return assert_type(reason, StopReason).value
        case RetryableRejection(reached=reached):
            return str(assert_type(reached, bool))
        case RateLimited(retry_after=retry_after):
            return assert_type(retry_after, str | None) or ""
        case OutcomeUnknown(inference_id=inference_id):
            return assert_type(inference_id, str)
        case never:
            assert_never(never)


async def read_types(api: Api) -> None:
    assert_type(await api.get_status("g"), GenerationStatus | StatusError)
    page = await api.log_page({"period": "24h"}, limit=1, offset=0)
    assert_type(page, LogPage | StatusError)
    if isinstance(page, LogPage):
        assert_type(page.rows, tuple[LogRow, ...])
    assert_type(await api.transactions(), TransactionPage | StatusError)
    assert_type(await api.key_info(), KeyInfo | StatusError)
    assert_type(await api.balance(), float | None)
    assert_type(api.vendor_now(), float | None)


async def ledger_types(ledger: Ledger, before: Record, after: Record) -> None:
    assert_type(await ledger.load(), list[Record])
    assert_type(await ledger.get("key"), Record | None)
    assert_type(await ledger.commit(before, after), Record)
    assert_type(await ledger.commit_many([Transition(before, after)]), list[Record | Conflict])
    assert_type(await ledger.counts(), dict[State, int])
    before.state = State.DONE  # type: ignore[misc]


async def engine_types(engine: Engine, error: StopRun) -> None:
    assert_type(await engine.run(), RunOutcome)
    assert_type(engine.records(), list[Record])
    engine.stop_submitting(error)
    engine.stop_submitting("credits")  # type: ignore[arg-type]


async def batch_types() -> None:
    async with Batch("night.yaml", sandbox=True, max_cost=5.0) as batch:
        assert_type(await batch.estimate(), Estimate)
        async for event in batch.run():
            assert_type(event, RowChanged | Event)
        assert_type(await batch.results(), Results)
    Batch([("https://example.com/a.jpg", "A prompt.")], concurency=3)  # type: ignore[call-arg]
    Batch("night.yaml", max_cost="much")  # type: ignore[arg-type]
    assert_type(run([{"image_url": "u", "prompt": "p"}], title="x")[0], Row)
