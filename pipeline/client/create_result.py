"""What an answer to a create request proves, status by status. Pure.

Money hangs on this table: only an answer that is *known* to mean "not accepted" lets the row be sent again or
fail; everything else leaves it in doubt. Sources: the error table of the vendor's documentation, and RFC 9110
for statuses by which a server refuses to read a request at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.client.error_parsing import error_message, request_id
from pipeline.client.json_values import UnreadableResponseError, excerpt, parse_object, storable_text
from pipeline.client.responses import (
    COMPLETED_STATUSES,
    FAILED_STATUSES,
    GenerationStatus,
    Phase,
    StatusError,
    parse_generation,
)
from pipeline.errors import StopReason
from pipeline.model import Failure
from pipeline.net.retry_after import retry_after_header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Accepted:
    """The vendor took the job; `generation_status` is what its answer says of it."""

    generation_id: str
    generation_status: GenerationStatus


@dataclass(frozen=True, slots=True)
class Rejected:
    """This job will never be accepted as it is. `request_id` is the vendor's, for its support."""

    failure: Failure
    request_id: str = ""
    inference_id: str = ""


@dataclass(frozen=True, slots=True)
class RetryableRejection:
    """Not accepted, for a reason that may pass. `reached` says whether the API answered."""

    message: str
    reached: bool
    inference_id: str = ""


@dataclass(frozen=True, slots=True)
class RateLimited:
    """429: too fast or too many. No fault of the job."""

    message: str
    retry_after: str | None


@dataclass(frozen=True, slots=True)
class AccountBlocked:
    """The account cannot go on (key, credits, quota): no create will be accepted for now."""

    reason: StopReason
    message: str
    retry_after: str | None = None
    inference_id: str = ""


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """It may have been accepted, and then it will be charged. Never send it again blindly."""

    message: str
    inference_id: str = ""
    request_id: str = ""


NamingResult = Rejected | RetryableRejection | AccountBlocked | OutcomeUnknown
"""Results of answers that do not say "accepted" and may name a generation all the same, by `inference_id`."""

CreateResult = Accepted | RateLimited | NamingResult

LOOKUP_WAITS_S: Final[Mapping[type[CreateResult], tuple[float, ...]]] = {
    OutcomeUnknown: (0.0, 2.0),
    RetryableRejection: (0.0, 0.5),
    Rejected: (0.0,),
    AccountBlocked: (0.0,),
}
"""When the status of a generation that an answer names is asked for, each time after so many seconds.

The second time over a new connection, since a replica may be behind; sooner where the row's next try waits.
"""

INVALID_REQUEST: Final = frozenset({400, 422})
"""The vendor's answers to a body that is wrong."""

TOO_LARGE: Final = 413
"""Refused before the body is looked at (RFC 9110, 15.5.14), for what is the row's own: its size."""

NOT_READ: Final = frozenset({405, 411, 414, 415, 431})
"""Refused before the body is looked at (RFC 9110, 15.5; RFC 6585): the wrong method, address, type or head.
All creates have the same, so that no row is at fault, but a page for maintenance or the base URL."""

REDIRECTS: Final = frozenset({301, 302, 307, 308})
"""The request is to be sent elsewhere, and nothing was done here (RFC 9110, 15.4). 303 is no such answer: it
points at what came of the request."""

NOT_ACCEPTED: Final = frozenset({500, 503})
"""The vendor's documentation: not accepted, try again later. Gateways say the same of what they forwarded."""

QUOTA_RETRY_AFTER_S: Final = 600.0
"""A `Retry-After` from here on is a quota's, not a rate's."""


@dataclass(frozen=True, slots=True)
class CreateResponse:
    """An answer as it came: `body` is empty when it was cut. `url` is where it was asked for.

    `correlation_id` is what the create was sent with, "" for one that is not known.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    correlation_id: str = ""

    def is_about_another(self) -> bool:
        """Return whether it names another request, as a cache or a gateway may mix them up.

        `x-client-request-id` repeats what was sent (vendor's documentation); without it nothing is known.
        """
        named = self.headers.get("x-client-request-id", "").strip()
        return bool(named and self.correlation_id) and named.casefold() != self.correlation_id.casefold()


def classify_create(response: CreateResponse, key_source: str) -> CreateResult:
    """Return what `response` proves about the create that it answers."""
    status, headers = response.status, response.headers
    message = f"HTTP {status}: {error_message(response.body)}"
    asked, named = request_id(headers, response.body), inference_id(headers)
    if response.is_about_another():
        return OutcomeUnknown(f"the answer names another request: {message}")
    retry_after = retry_after_header(headers)
    if 200 <= status < 300:
        return _parse_acceptance(headers, response.body)
    # With an inference id the create reached the vendor, whatever status a gateway made of it.
    if status in REDIRECTS and not named:
        redirected = f"HTTP {status}: {response.url} redirects elsewhere; check the base URL"
        return AccountBlocked(StopReason.UNREACHABLE, redirected)
    if status == 401:
        refused = f"the key read from {key_source} was refused: {message}"
        return AccountBlocked(StopReason.KEY, refused, inference_id=named)
    if status in (402, 403):
        return AccountBlocked(StopReason.CREDITS, message, inference_id=named)
    if status == 404:
        return Rejected(Failure("not_found", f"{message} (POST {response.url})"), asked, named)
    if status == 429:
        if is_quota(message, retry_after):
            return AccountBlocked(StopReason.QUOTA, message, retry_after)
        return RateLimited(message, retry_after)
    if status in INVALID_REQUEST or status == TOO_LARGE:
        return Rejected(Failure("refused", message), asked, named)
    if status in NOT_READ and not named:
        return RetryableRejection(f"{message} (POST {response.url})", reached=True)
    if status in NOT_ACCEPTED:
        return RetryableRejection(message, reached=True, inference_id=named)
    # 408, 502, 504, 520 and their like, other redirects, and every 4xx that no document of the vendor
    # names: 409, 421, 425, 460 and 499 have been seen on creates that were accepted.
    return OutcomeUnknown(message, named, asked)


def inference_id(headers: Mapping[str, str]) -> str:
    """Return `x-inference-id`: for a video the id that create returned, also on an error of a gateway."""
    return storable_text(headers.get("x-inference-id", "")).strip()


def is_quota(message: str, retry_after: str | None) -> bool:
    """Tell a quota from a rate: both are 429, and only the message or a very long wait differs."""
    lowered = message.lower()
    names_quota = "free-tier" in lowered or "free tier" in lowered or "quota" in lowered
    names_period = any(
        span in lowered for span in ("for the hour", "per hour", "for the day", "per day", "hourly", "daily")
    )
    long_wait = (
        retry_after is not None
        and retry_after.strip().isdecimal()
        and float(retry_after) >= QUOTA_RETRY_AFTER_S
    )
    return names_quota or ("limit" in lowered and names_period) or long_wait


def _parse_acceptance(headers: Mapping[str, str], body: bytes) -> CreateResult:
    """Any 2xx is an acceptance; what must be found is the id.

    For a video `x-inference-id` carries the id that create returned (vendor's documentation), which saves an
    answer whose body was cut or garbled.
    """
    from_header, asked = inference_id(headers), request_id(headers, body)
    try:
        payload = parse_object(body)
        generation_status = parse_generation(payload, headers)
    except UnreadableResponseError:
        if from_header:
            return Accepted(from_header, GenerationStatus(Phase.UNKNOWN, "", from_header))
        return OutcomeUnknown(f"accepted with an unreadable answer: {excerpt(body)}", request_id=asked)
    generation_id = generation_status.generation_id or from_header
    if generation_id:
        return Accepted(generation_id, generation_status)
    failure, completed = generation_status.failure, generation_status.status in COMPLETED_STATUSES
    # A gateway's own "error" has neither an id nor the vendor's reason: it may hide an acceptance.
    if failure is not None and not completed and payload.get("error"):
        return Rejected(failure, asked)
    return OutcomeUnknown(f"accepted without an id: {excerpt(body)}", request_id=asked)


def apply_lookup(result: NamingResult, answers: Sequence[GenerationStatus | StatusError]) -> CreateResult:
    """Return what `result` comes to once the generation it names was asked for; `answers` in their order.

    What the vendor knows was accepted. A create that it refused has an id that the status endpoint answers
    with 404 (vendor's documentation), or with a failure, which is not charged.
    """
    for status in answers:
        if isinstance(status, StatusError) or (status.phase is Phase.UNKNOWN and not status.status):
            continue
        if status.status not in FAILED_STATUSES or isinstance(result, OutcomeUnknown):
            return Accepted(result.inference_id, status)
    return result
