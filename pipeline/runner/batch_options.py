"""What a program may ask of a batch, as keyword arguments, and the request that it makes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from pipeline.batch.paths import LedgerChoice
from pipeline.batch.request import ClusterOptions, RunRequest
from pipeline.client import ApiKey
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from typing import TypeAlias

JobLike: TypeAlias = "Mapping[str, Any] | Sequence[str]"
"""A row of a manifest made in code: its fields by name, or the pair (image_url, prompt)."""

ManifestLike: TypeAlias = "str | os.PathLike[str] | Iterable[JobLike]"
"""The path of a manifest, or its rows."""


class BatchOptions(TypedDict, total=False):
    """The options of `veobatch run`, by the names that they have there.

    `workers`, `ray_address` and `lease` (in seconds) are for `engine="ray"`. `api_key` is looked up in the
    environment when it is not given; `as_new` pays for the new rows of a manifest that seems rewritten, which
    is refused otherwise.
    """

    output: str | os.PathLike[str]
    sandbox: bool
    sandbox_speed: float
    api_key: str
    base_url: str
    model: str
    takes: int
    retake: tuple[str, ...]
    engine: Literal["local", "ray"]
    workers: int
    ray_address: str
    lease: float
    ledger: str
    batch: str
    retry_failed: bool
    only: tuple[str, ...]
    resubmit_in_doubt: bool
    begin_anew: bool
    as_new: bool
    select: tuple[str, ...]
    limit: int
    receipts: bool
    on_done: str
    webhook: str
    allow_private_webhook: bool
    concurrency: int
    downloads: int
    poll_interval: float
    timeout: float
    request_timeout: float
    reconcile_after: float
    reconcile_wait: float
    generation_retries: int
    max_cost: float
    assume_price: float
    wait_for_quota: bool
    media: bool
    name: str
    max_video_bytes: int
    check_images: bool
    allow_private_images: bool
    image_store: str
    image_store_public: bool
    image_link_life: float
    image_base_url: str
    fit: Literal["pad", "crop"]
    verify: bool
    fetch_missing: bool


_REQUEST_OPTIONS: Final = frozenset(field.name for field in fields(RunRequest))


def make_request(manifest: ManifestLike, title: str, options: Mapping[str, Any]) -> RunRequest:
    """Return the request for a manifest and options. Raises `UsageError` for what no option is called."""
    rest = dict(options)
    unknown = sorted(rest.keys() - BatchOptions.__annotations__.keys())
    if unknown:
        raise UsageError(f"Batch has no option {', '.join(unknown)}: see the documentation of BatchOptions")
    output, key = rest.pop("output", None), rest.pop("api_key", "")
    choice = LedgerChoice(rest.pop("ledger", None), rest.pop("batch", None))
    cluster, only = _cluster(rest), frozenset(rest.pop("only", ()))
    if only and not rest.get("retry_failed"):
        raise UsageError("only chooses among failed rows: give retry_failed=True, too")
    asked = {name: rest.pop(name) for name in _REQUEST_OPTIONS & rest.keys()}
    path, data = _manifest_text(manifest, title)
    return RunRequest(
        path,
        data,
        argv=() if data is not None else _command_arguments(path, options),
        output=None if output is None else str(output),
        ledger_choice=choice,
        cluster=cluster,
        only=only,
        key=ApiKey(key, "api_key") if key else None,
        flags=rest,
        **asked,
    )


def _cluster(rest: dict[str, Any]) -> ClusterOptions | None:
    """Take the options of a cluster out of `rest`; return None when none is wanted."""
    engine = rest.pop("engine", "local")
    given = {name: rest.pop(name, None) for name in ("workers", "ray_address", "lease")}
    if engine == "ray":
        return ClusterOptions.from_flags(given["workers"], given["ray_address"], given["lease"])
    if engine != "local":
        raise UsageError(f"engine is 'local' or 'ray', not {engine!r}")
    if any(value is not None for value in given.values()):
        raise UsageError("workers, ray_address and lease are for engine='ray'")
    return None


def _manifest_text(manifest: ManifestLike, title: str) -> tuple[Path, bytes | None]:
    """Return the manifest's path, and its text when it was made in code: one row a line, for messages."""
    if isinstance(manifest, str | os.PathLike):
        return Path(manifest), None
    rows = [json.dumps(dict(row) if isinstance(row, Mapping) else list(row)) for row in manifest]
    return Path(f"{title}.json"), ("[" + ",\n".join(rows) + "]").encode()


def _command_arguments(path: Path, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the arguments of the command that continues this batch; never the key."""
    arguments = ["run", str(path)]
    for name in options.keys() - {"api_key", "resubmit_in_doubt", "begin_anew", "as_new", "retake"}:
        value, flag = options[name], f"--{name.replace('_', '-')}"
        if name == "media":
            arguments += [] if value else ["--no-media"]
        elif isinstance(value, bool):
            arguments += [flag] if value else []
        elif isinstance(value, tuple):
            arguments += [part for item in value for part in (flag, str(item))]
        elif value is not None:
            arguments += [flag, str(value)]
    return tuple(arguments)
