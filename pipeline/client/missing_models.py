"""Return whether a 404 to a create says something of the model, and so of every row that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from pipeline.client.catalog import Catalog

if TYPE_CHECKING:
    import aiohttp

NEGATIVE_TTL_S: Final = 60.0
"""How long "the vendor has it" is cached: a model may be withdrawn while a run goes on."""


class MissingModels:
    """Asks the feed of deprecations and the list of models, once for all the rows of a model."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        """`session` must carry no key."""
        self._session = session
        self._base_url = base_url
        self._found: dict[str, tuple[str, float]] = {}
        self._lock = anyio.Lock()

    async def explain(self, model: str) -> str:
        """Return why no create with `model` is accepted any more, "" when nothing confirms that."""
        async with self._lock:
            message, found_at = self._found.get(model, ("", float("-inf")))
            if message or anyio.current_time() - found_at < NEGATIVE_TTL_S:
                return message
            message = await Catalog(self._session, self._base_url).explain_missing(model)
            self._found[model] = (message, anyio.current_time())
            return message
