"""What workers learn of durations, told to one another by way of the account. No clock, no messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pipeline.poll.learner import DurationLearner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.cluster.messages import DurationObservation

MAX_BACKLOG: Final = 5000
"""How many lessons are kept for those who have not asked for a while."""


class SharingLearner(DurationLearner):
    """Learns as ever, and keeps what it has seen itself to be told to the others."""

    def __init__(self, interval_s: float) -> None:
        super().__init__(interval_s)
        self._unsent: list[DurationObservation] = []

    def on_still_running(self, kind: str, from_s: float, to_s: float) -> None:
        self._unsent.append((kind, from_s, to_s, False))
        super().on_still_running(kind, from_s, to_s)

    def on_finished(self, kind: str, from_s: float, to_s: float) -> None:
        self._unsent.append((kind, from_s, to_s, True))
        super().on_finished(kind, from_s, to_s)

    def apply(self, observation: DurationObservation) -> None:
        """Take over what another worker has seen."""
        kind, from_s, to_s, ended = observation
        (super().on_finished if ended else super().on_still_running)(kind, from_s, to_s)

    def take_observations(self) -> tuple[DurationObservation, ...]:
        """Return what is to be told, and forget it."""
        observations, self._unsent = tuple(self._unsent), []
        return observations


class SharedDurations:
    """The account's side: all that was learned, and who has heard how much of it."""

    def __init__(self, interval_s: float, cached_durations: Mapping[str, Any]) -> None:
        self._learner = DurationLearner(interval_s)
        self._learner.restore(dict(cached_durations))
        self._backlog: list[tuple[str, DurationObservation]] = []
        self._dropped = 0
        self._next_index: dict[str, int] = {}

    def join(self, worker: str) -> dict[str, Any]:
        """Return all that is known to a worker that begins."""
        self._next_index[worker] = self._end
        return self.dump()

    def dump(self) -> dict[str, Any]:
        """Return all that is known, as `DurationLearner.restore` takes it."""
        return self._learner.dump()

    def add(self, worker: str, observations: Iterable[DurationObservation]) -> None:
        """Take over what a worker has seen."""
        for observation in observations:
            kind, from_s, to_s, ended = observation
            (self._learner.on_finished if ended else self._learner.on_still_running)(kind, from_s, to_s)
            self._backlog.append((worker, observation))
        if len(self._backlog) > 2 * MAX_BACKLOG:
            del self._backlog[:MAX_BACKLOG]
            self._dropped += MAX_BACKLOG

    def since(self, worker: str) -> tuple[DurationObservation, ...]:
        """Return what others have seen since this worker was last told."""
        start = max(self._next_index.get(worker, self._end), self._dropped)
        self._next_index[worker] = self._end
        return tuple(lesson for by, lesson in self._backlog[start - self._dropped :] if by != worker)

    def remove_worker(self, worker: str) -> None:
        """A worker is no more."""
        self._next_index.pop(worker, None)

    @property
    def _end(self) -> int:
        return self._dropped + len(self._backlog)
