"""Which rows the vendor has refused in the account's name, and whose matter that is. Pure.

A firewall answers a single prompt with the same 403 as an account out of credits, so one row's answer stops
nothing by itself: either the account says so when it is asked, or several rows in a row are refused.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_ROWS: Final = 3
"""So many different rows refused, with none accepted in between, mean that it is the account."""


class RefusedRows:
    """Rows that were refused in the account's name since the last acceptance, and how often each."""

    def __init__(self) -> None:
        self._since_accepted: set[str] = set()
        self._refusals: dict[str, int] = {}
        self._accepted = 0
        self._explaining = 0
        self._accepted_at_first: dict[str, int] = {}

    @property
    def is_being_explained(self) -> bool:
        """Return whether the account is being asked why it refuses: what is sent now may be refused, too."""
        return self._explaining > 0

    @contextmanager
    def being_explained(self) -> Iterator[None]:
        """While the account is asked, no other row is submitted."""
        self._explaining += 1
        try:
            yield
        finally:
            self._explaining -= 1

    def on_accepted(self) -> None:
        """A create was accepted: whatever was refused before, the account works."""
        self._accepted += 1
        self._since_accepted.clear()

    def on_refused(self, key: str) -> None:
        self._since_accepted.add(key)
        self._refusals[key] = self._refusals.get(key, 0) + 1
        self._accepted_at_first.setdefault(key, self._accepted)

    def is_accounts_own(self) -> bool:
        """Return whether so many different rows were refused, one after the other, that it is the account."""
        return len(self._since_accepted) >= MIN_ROWS

    def is_rows_own(self, key: str) -> bool:
        """Return whether a row was refused again after others had been accepted."""
        # Twice: between the first refusal and an acceptance the account may have been topped up.
        return self._refusals.get(key, 0) > 1 and self._accepted > self._accepted_at_first[key]

    def refusals(self, key: str) -> int:
        return self._refusals.get(key, 0)
