"""Rendering durations that workers learn, shared by way of the coordinator. No clock, no messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pipeline.poll.learner import DurationLearner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.cluster.messages import DurationObservation

MAX_BACKLOG: Final = 5000
"""How many observations are kept for workers that have not asked for a while."""


class SharingLearner(DurationLearner):
    """A learner that also keeps its own observations for the other workers."""

    def __init__(self, interval_s: float) -> None:
        super().__init__(interval_s)
        self._unsent: list[DurationObservation] = []

    def on_still_running(self, duration_key: str, from_s: float, to_s: float) -> None:
        self._unsent.append((duration_key, from_s, to_s, False))
        super().on_still_running(duration_key, from_s, to_s)

    def on_finished(self, duration_key: str, from_s: float, to_s: float) -> None:
        self._unsent.append((duration_key, from_s, to_s, True))
        super().on_finished(duration_key, from_s, to_s)

    def apply(self, observation: DurationObservation) -> None:
        """Learn from another worker's observation."""
        duration_key, from_s, to_s, finished = observation
        (super().on_finished if finished else super().on_still_running)(duration_key, from_s, to_s)

    def take_observations(self) -> tuple[DurationObservation, ...]:
        """Return the observations since the last call, and clear them."""
        observations, self._unsent = tuple(self._unsent), []
        return observations


class SharedDurations:
    """The coordinator's side: all that was learned, and how much of it each worker has."""

    def __init__(self, interval_s: float, cached_durations: Mapping[str, Any]) -> None:
        self._learner = DurationLearner(interval_s)
        self._learner.restore(dict(cached_durations))
        self._backlog: list[tuple[str, DurationObservation]] = []
        self._dropped = 0
        self._next_index: dict[str, int] = {}

    def join(self, worker: str) -> dict[str, Any]:
        """Register a worker; return all that is known."""
        self._next_index[worker] = self._end
        return self.dump()

    def dump(self) -> dict[str, Any]:
        """Return all that is known, as `DurationLearner.restore` takes it."""
        return self._learner.dump()

    def add(self, worker: str, observations: Iterable[DurationObservation]) -> None:
        for observation in observations:
            duration_key, from_s, to_s, finished = observation
            (self._learner.on_finished if finished else self._learner.on_still_running)(
                duration_key, from_s, to_s
            )
            self._backlog.append((worker, observation))
        if len(self._backlog) > 2 * MAX_BACKLOG:
            del self._backlog[:MAX_BACKLOG]
            self._dropped += MAX_BACKLOG

    def since(self, worker: str) -> tuple[DurationObservation, ...]:
        """Return the other workers' observations since this one last asked."""
        start = max(self._next_index.get(worker, self._end), self._dropped)
        self._next_index[worker] = self._end
        return tuple(
            observation for by, observation in self._backlog[start - self._dropped :] if by != worker
        )

    def remove_worker(self, worker: str) -> None:
        self._next_index.pop(worker, None)

    @property
    def _end(self) -> int:
        return self._dropped + len(self._backlog)
