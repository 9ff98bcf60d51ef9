"""What workers learn of durations, told to one another by way of the account. No clock, no messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pipeline.poll.learner import DurationLearner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.cluster.messages import Lesson

KEPT: Final = 5000
"""How many lessons are kept for those who have not asked for a while."""


class SharingLearner(DurationLearner):
    """Learns as ever, and keeps what it has seen itself to be told to the others."""

    def __init__(self, interval_s: float) -> None:
        super().__init__(interval_s)
        self._seen: list[Lesson] = []

    def survived(self, kind: str, from_s: float, to_s: float) -> None:
        self._seen.append((kind, from_s, to_s, False))
        super().survived(kind, from_s, to_s)

    def ended(self, kind: str, from_s: float, to_s: float) -> None:
        self._seen.append((kind, from_s, to_s, True))
        super().ended(kind, from_s, to_s)

    def hear(self, lesson: Lesson) -> None:
        """Take over what another worker has seen."""
        kind, from_s, to_s, ended = lesson
        (super().ended if ended else super().survived)(kind, from_s, to_s)

    def seen(self) -> tuple[Lesson, ...]:
        """Return what is to be told, and forget it."""
        told, self._seen = tuple(self._seen), []
        return told


class Lessons:
    """The account's side: all that was learned, and who has heard how much of it."""

    def __init__(self, interval_s: float, memory: Mapping[str, Any]) -> None:
        self._learner = DurationLearner(interval_s)
        self._learner.restore(dict(memory))
        self._told: list[tuple[str, Lesson]] = []
        self._forgotten = 0
        self._read_until: dict[str, int] = {}

    def join(self, worker: str) -> dict[str, Any]:
        """Return all that is known to a worker that begins."""
        self._read_until[worker] = self._end
        return self.known()

    def known(self) -> dict[str, Any]:
        """Return all that is known, as `DurationLearner.restore` takes it."""
        return self._learner.dump()

    def learn(self, worker: str, lessons: Iterable[Lesson]) -> None:
        """Take over what a worker has seen."""
        for lesson in lessons:
            kind, from_s, to_s, ended = lesson
            (self._learner.ended if ended else self._learner.survived)(kind, from_s, to_s)
            self._told.append((worker, lesson))
        if len(self._told) > 2 * KEPT:
            del self._told[:KEPT]
            self._forgotten += KEPT

    def news(self, worker: str) -> tuple[Lesson, ...]:
        """Return what others have seen since this worker was last told."""
        since = max(self._read_until.get(worker, self._end), self._forgotten)
        self._read_until[worker] = self._end
        return tuple(lesson for by, lesson in self._told[since - self._forgotten :] if by != worker)

    def gone(self, worker: str) -> None:
        """A worker is no more."""
        self._read_until.pop(worker, None)

    @property
    def _end(self) -> int:
        return self._forgotten + len(self._told)
