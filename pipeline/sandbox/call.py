"""What is known about the API call that is being answered, for every part of the answer.

It is a context variable because aiohttp's typed storage on a request needs a newer release than the oldest
that is supported.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

from pipeline.sandbox import clock
from pipeline.sandbox.keys import KeyRule

if TYPE_CHECKING:
    from pipeline.sandbox.options import ErrorShape
    from pipeline.sandbox.state import Generation


@dataclass(slots=True)
class Call:
    """One API call. `vendor_time` is its arrival by the vendor's clock; `key` is "-" for public calls."""

    vendor_time: float = field(default_factory=clock.now)
    error_shape: ErrorShape = "classic"
    request_id: str = field(default_factory=lambda: str(uuid4()))
    key: KeyRule = field(default_factory=lambda: KeyRule("-"))
    model: str = "unknown"
    accepted: Generation | None = None


_CALL: ContextVar[Call | None] = ContextVar("call", default=None)


def begin_call(vendor_time: float, error_shape: ErrorShape) -> Call:
    """Make the call that this task answers from now on."""
    call = Call(vendor_time, error_shape)
    _CALL.set(call)
    return call


def current_call() -> Call | None:
    """The call that this task answers; None on the CDN, which is no API."""
    return _CALL.get()


def require_call() -> Call:
    """The call that this task answers. Raises `LookupError` outside of the API."""
    call = _CALL.get()
    if call is None:
        raise LookupError("no API call is being answered")
    return call
