"""veobatch: a manifest of (image, prompt) pairs in, finished MP4s and a results CSV out.

`Batch` and `run` are the command's own way, for programs; what is public is listed in `__all__`. Importing
this package imports nothing else: a name is loaded when it is first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.errors import ManifestError as ManifestError
    from pipeline.errors import StopReason as StopReason
    from pipeline.errors import StopRun as StopRun
    from pipeline.errors import UsageError as UsageError
    from pipeline.errors import VeobatchError as VeobatchError
    from pipeline.events import Event as Event
    from pipeline.results.rows import Row as Row
    from pipeline.runner.batch_handle import Batch as Batch
    from pipeline.runner.batch_options import BatchOptions as BatchOptions
    from pipeline.runner.event_stream import RowChanged as RowChanged
    from pipeline.runner.manifest_estimate import Estimate as Estimate
    from pipeline.runner.results import Results as Results
    from pipeline.runner.sync import run as run

__version__ = "0.1.0"

_MODULES = {
    "Batch": "runner.batch_handle",
    "BatchOptions": "runner.batch_options",
    "Estimate": "runner.manifest_estimate",
    "Event": "events",
    "ManifestError": "errors",
    "Results": "runner.results",
    "Row": "results.rows",
    "RowChanged": "runner.event_stream",
    "StopReason": "errors",
    "StopRun": "errors",
    "UsageError": "errors",
    "VeobatchError": "errors",
    "run": "runner.sync",
}

__all__ = [*_MODULES, "__version__"]  # noqa: PLE0604 - all are strings


if not TYPE_CHECKING:  # a type checker is to know every name, and no other

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
