"""What the vendor, or a proxy in front of it, says when it does not do what was asked."""

from __future__ import annotations

from typing import Final

from tests.simulation.vendor import Answer, problem

NAMELESS_ERROR: Final = Answer(200, b'{"status": "error", "message": "Service temporarily unavailable"}')
"""What a gateway says in the vendor's words: it names neither a generation nor a reason."""

REFUSALS: Final = {
    "400": problem(400, "prompt is too long"),
    "401": problem(401, "Unauthorized"),
    "402": problem(402, "Payment required"),
    "403": problem(403, "Forbidden"),
    "404": problem(404, "not found"),
    "422": problem(422, "unprocessable"),
    "429": problem(429, "Too many requests"),
    "429 with a wait": problem(429, "Too many requests", Retry_After="7"),
    "429 quota": problem(429, "free-tier limit reached for the hour", Retry_After="900"),
    "500": problem(500, "Internal error"),
    "503": problem(503, "Unavailable"),
    "520 before acceptance": Answer(520, b"<html>unknown error</html>"),
    "502 before acceptance": Answer(502, b"<html>bad gateway</html>"),
    "405": Answer(405, b"<html>maintenance</html>"),
    "nameless error before acceptance": NAMELESS_ERROR,
    "redirect": Answer(302, b"", {"Location": "https://elsewhere.example/"}),
}
"""Answers to a create that was not accepted."""

FLAP: Final = b'{"id": "%b", "status": "error", "error": {"name": "E", "message": "flap"}}'
URLLESS: Final = b'{"status": "completed", "video": null}'

AFTER_ACCEPTANCE: Final = {
    "502 after acceptance": 502,
    "504 with the id": 504,
    "408 after acceptance": 408,
    "409 after acceptance": 409,
    "460 after acceptance": 460,
    "499 after acceptance": 499,
    "503 with the id": 503,
}
"""Statuses that hide an acceptance. The 503 is in a kept history, and no seed chooses it: while the status
endpoint answers 404 for all that it knows, nothing tells it from the vendor's own."""
