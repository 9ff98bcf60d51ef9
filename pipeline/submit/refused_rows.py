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

MAX_ROWS: Final = 20
"""So many do, although the account says that it works: some prompts that a firewall refuses are fewer."""


class RefusedRows:
    """Rows that were refused in the account's name since the last acceptance, and how often each.

    What counts is the order in which creates were sent: an answer may be read long after it was given.
    """

    def __init__(self) -> None:
        self._sent = 0
        self.last_accepted = -1
        """The place of the last create that was accepted, -1 before."""
        self._since_accepted: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self._sent_after_first: dict[str, int] = {}
        self._explaining = 0
        self._given_up = 0

    @property
    def has_accepted(self) -> bool:
        """Return whether any create was accepted: key, address and model were right then."""
        return self.last_accepted >= 0

    @property
    def is_being_explained(self) -> bool:
        """Return whether the account is being asked why it refuses: what is sent now may be refused, too."""
        return self._explaining > 0

    @property
    def is_unexplained(self) -> bool:
        """Return whether no create that was sent after the last refusal has been accepted yet."""
        return bool(self._since_accepted)

    @contextmanager
    def being_explained(self) -> Iterator[None]:
        """While the account is asked, no other row is submitted."""
        self._explaining += 1
        try:
            yield
        finally:
            self._explaining -= 1

    def on_sent(self) -> int:
        """Return the place of a create that leaves now, for what is said of its answer."""
        self._sent += 1
        return self._sent - 1

    def on_accepted(self, place: int) -> None:
        """A create was accepted: whatever was refused of those sent before it, the account works."""
        self.last_accepted = max(self.last_accepted, place)
        self._given_up, refused = 0, self._since_accepted
        self._since_accepted = {key: sent for key, sent in refused.items() if sent > self.last_accepted}

    def on_refused(self, key: str, place: int) -> None:
        if place > self.last_accepted:
            self._since_accepted[key] = place
        self._refusals[key] = self._refusals.get(key, 0) + 1
        self._sent_after_first.setdefault(key, self._sent)

    def on_given_up(self, key: str) -> None:
        """The row is left aside for what was refused: that says no more of an account that does not work."""
        self._since_accepted.pop(key, None)
        self._given_up += not self.is_rows_own(key)

    def is_accounts_own(self, *, account_works: bool = False) -> bool:
        """Return whether so many different rows were refused, one after the other, that it is the account.

        It takes more of them where the account has just said that it works.
        """
        refused = len(self._since_accepted)
        return refused + self._given_up >= MAX_ROWS if account_works else refused >= MIN_ROWS

    def is_rows_own(self, key: str) -> bool:
        """Return whether a row was refused again after others, sent after it, had been accepted."""
        # Twice: between the first refusal and an acceptance the account may have been topped up.
        return self._refusals.get(key, 0) > 1 and self.last_accepted >= self._sent_after_first[key]

    def refusals(self, key: str) -> int:
        return self._refusals.get(key, 0)
