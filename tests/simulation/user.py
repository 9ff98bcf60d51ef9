"""Who runs the command, and what they write into the manifest."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.identity import canonical_json, fingerprint
from pipeline.model import Job, State
from pipeline.settings import Settings
from tests.simulation.command import Request
from tests.simulation.vendor import MODEL

if TYPE_CHECKING:
    from tests.simulation.world import World

FIRST_KEY: Final = "sk-first-key"
SECOND_KEY: Final = "sk-second-key"


@functools.cache
def _content(prompt: str) -> tuple[str, dict[str, Any]]:
    body = {"model": MODEL, "prompt": prompt, "image_url": "https://pictures.example/a.jpg"}
    return fingerprint(canonical_json(body)), body


def make_job(name: str, prompt: str, index: int) -> Job:
    """Return a row of the manifest."""
    made, body = _content(prompt)
    return Job(name, made, index, MODEL, body, line=index + 1)


class User:
    """Who runs the command, and what they write into the manifest."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._chance = world.chance.stream("user")
        self._rows = [(f"row-{number}", f"prompt {number}") for number in range(world.options.rows)]
        self.key = FIRST_KEY
        self.rotated = False

    def request(self, *, retry_failed: bool = False, resubmit_in_doubt: bool = False) -> Request:
        options = self.world.options
        settings = Settings(
            concurrency=options.concurrency,
            downloads=4,
            poll_interval=10.0,
            timeout=1800.0 if self.world.chance.calm else options.timeout,
            reconcile_after=options.reconcile_after,
            generation_retries=options.generation_retries,
            max_cost=options.max_cost,
            media=False,
        )
        jobs = tuple(make_job(name, prompt, index) for index, (name, prompt) in enumerate(self._rows))
        return Request(jobs, settings, self.key, retry_failed, resubmit_in_doubt)

    def next_request(self) -> Request:
        """Decide on the next run: often the same again, sometimes with another manifest or wish."""
        kind = self.world.chance.draw("user")
        self.world.tell("USER", kind or "the same again")
        chance, rows = self._chance, self._rows
        match kind:
            case "rows added":
                new = [(f"new-{len(rows)}-{i}", f"new {len(rows)} {i}") for i in range(chance.randrange(3))]
                # Rows may have been removed since such an id was given, and none may be given twice.
                rows += [row for row in new if row not in rows]
            case "rows removed" if len(rows) > 1:
                del rows[chance.randrange(len(rows))]
            case "rows edited":
                at = chance.randrange(len(rows))
                rows[at] = (rows[at][0], f"{rows[at][1]}, please")
            case "reordered":
                chance.shuffle(rows)
            case "resubmit in doubt":
                self._give_up()
                return self.request(resubmit_in_doubt=True)
        return self.request(retry_failed=kind == "retry failed")

    def _give_up(self) -> None:
        """The user has rows submitted again, whatever became of what is in doubt."""
        for record in self.world.book.records.values():
            if record.state in (State.SUBMITTING, State.IN_DOUBT):
                self.world.book.given_up[record.key] = None
