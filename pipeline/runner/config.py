"""Everything about a run that is decided before anything is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from pipeline.batch.paths import batch_paths
from pipeline.client import ApiKey, normalize_base_url
from pipeline.errors import UsageError
from pipeline.plan import wanted_stem
from pipeline.runner.credentials import find_base_url, require_key
from pipeline.runner.embedded_sandbox import SANDBOX_KEY, sandbox_settings
from pipeline.runner.hook_targets import make_targets
from pipeline.settings import resolve
from pipeline.storage import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.batch.paths import BatchPaths
    from pipeline.batch.request import RunRequest
    from pipeline.manifest import Manifest
    from pipeline.settings import Settings
    from pipeline.storage import OutputStore

NO_KEY_HINT: Final = "To try without a key, free and offline: add --sandbox (from Python: sandbox=True)."


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A request, and what follows from it and from its manifest's settings.

    `base_url` is empty until the sandbox has started.
    """

    request: RunRequest
    settings: Settings
    paths: BatchPaths
    store: OutputStore
    key: ApiKey
    base_url: str


def configure(request: RunRequest, manifest: Manifest | None) -> RunConfig:
    """Find out where everything is. Blocking; touches no network and writes nothing.

    `manifest` is None while it cannot be read without the catalogue. Raises `UsageError` for settings,
    places and keys that cannot be used.
    """
    if request.sandbox and request.base_url:
        raise UsageError("--sandbox and --base-url exclude each other")
    if not isfinite(request.sandbox_speed):
        raise UsageError("--sandbox-speed takes a number, such as 20")
    settings = resolve_settings(request, manifest.run if manifest else {})
    if manifest is not None:
        wanted_stem(settings.name, manifest.jobs[0])  # a wrong --name is said before anything is touched
    _check_cluster(request)
    make_targets(request, os.environ)  # what cannot be used is said before anything is opened
    paths = batch_paths(request.manifest, request.output, request.ledger_choice, sandbox=request.sandbox)
    store = open_store(paths.output)
    if request.sandbox:
        return RunConfig(request, settings, paths, store, ApiKey(SANDBOX_KEY, "--sandbox"), "")
    key = request.key or require_key(os.environ, hint=NO_KEY_HINT)
    base_url = normalize_base_url(find_base_url(request.base_url, os.environ))
    return RunConfig(request, settings, paths, store, key, base_url)


def resolve_settings(request: RunRequest, manifest_run: Mapping[str, Any]) -> Settings:
    """Flags > environment > the manifest's `run:` > defaults; the sandbox, being fast, has its own."""
    return resolve(
        [
            ("the command line", request.flags),
            ("the environment", request.environment),
            (f"{request.manifest}: run", manifest_run),
            ("defaults", sandbox_settings(request.sandbox_speed) if request.sandbox else {}),
        ]
    )


def _check_cluster(request: RunRequest) -> None:
    """Raise `UsageError` for what cannot work with workers on other machines."""
    if request.cluster is None:
        return
    from pipeline.cluster import ray_backend  # noqa: F401 - says so when Ray is not installed

    if request.cluster.address is None:
        return
    if request.sandbox:
        raise UsageError("--sandbox listens on this machine only: leave --ray-address out")
    if not (request.ledger_choice.ledger or "").startswith("postgres"):
        raise UsageError(
            "workers on other machines need a ledger that they can reach: --ledger postgresql://..."
        )
