"""What is known of rendering times, by kind of generation, and the times of polls that follow.

It owns when to fit anew, and when to drop an estimate. It knows neither clock nor disk: polls come in as
ages, and the cache of earlier runs goes out and comes in as plain data.
"""

from __future__ import annotations

from math import expm1, log
from typing import TYPE_CHECKING, Any, Final

from pipeline.poll.observations import BIN_COUNT, BIN_STEP, MIN_AGE_S, Observations
from pipeline.poll.poll_times import MAX_INTERVAL, PollTimes, fixed_times, optimal_times
from pipeline.poll.survival_estimate import INITIAL_MEAN_INTERVALS, NEUTRAL, HazardEstimate, estimate_hazard

if TYPE_CHECKING:
    from collections.abc import Mapping

HALF_LIFE_COMPLETIONS: Final = 1000.0
"""After how many ends (or twice the generations in flight, if that is more) what was counted counts half."""

MIN_COMPLETIONS: Final = 4
MAX_COMPLETIONS: Final = 50
MIN_POLLS: Final = 10
"""Fit anew after so many ends or polls; after more of them the more there are."""

GRID_PARAMETERS: Final = [MIN_AGE_S, BIN_STEP, BIN_COUNT]
DUMP_FORMAT_VERSION: Final = 1

CACHED_WEIGHT: Final = 100.0
"""How many ends the cache of earlier runs counts for at most, so that this run's soon outweigh it."""

UNCONFIRMED_MAX_INTERVAL: Final = 3.0
CONFIRMING_COMPLETIONS: Final = 10
"""No wait is longer than this, in poll intervals, until so many ends of this run have confirmed a cache: when
all start at once and end twice as fast as cached, each would otherwise be polled late once."""

MAX_DURATION_KEYS: Final = 256
"""How many kinds a cache holds at most, the latest seen."""

DRIFT_THRESHOLD: Final = 6.0
"""An estimate is dropped once recent polls are exp(6) = 400 times likelier under a constant hazard."""

NEW_DRIFT_THRESHOLD: Final = 3.0
"""The same for a cache that no end of this run has confirmed yet."""

DRIFT_DISCOUNT: Final = 0.05
"""What the observations of a dropped estimate still count for."""


class _KeyState:
    """One kind: its observations, the estimate they give, and how well that has predicted recent polls."""

    __slots__ = (
        "cached_count",
        "drift",
        "estimate",
        "fitted_completions",
        "fitted_polls",
        "mean_s",
        "neutral_estimate",
        "observations",
        "times",
    )

    def __init__(self, observations: Observations, mean_s: float) -> None:
        self.observations = observations
        self.times: dict[float, PollTimes] = {}
        self.mean_s = mean_s
        self.estimate: HazardEstimate | None = None
        self.neutral_estimate: HazardEstimate | None = None
        self.drift = 0.0
        self.cached_count = observations.completion_count
        self.fitted_completions = 0
        self.fitted_polls = 0

    def max_interval(self) -> float:
        """Return the longest wait between polls, in poll intervals."""
        return UNCONFIRMED_MAX_INTERVAL if self.only_cached() else MAX_INTERVAL

    def only_cached(self) -> bool:
        """Return whether the estimate still rests mostly on cached durations."""
        return self.cached_count > 0 and not self.is_confirmed()

    def is_confirmed(self) -> bool:
        """Return whether this run alone has seen enough generations end."""
        return self.observations.completion_count - self.cached_count >= CONFIRMING_COMPLETIONS

    def needs_refit(self) -> bool:
        """Return whether enough has been seen since the last fit for another one."""
        observations = self.observations
        new_completions, new_polls = (
            observations.completion_count - self.fitted_completions,
            observations.poll_count - self.fitted_polls,
        )
        min_completions = max(
            MIN_COMPLETIONS,
            observations.running_count // 25,
            min(MAX_COMPLETIONS, observations.completion_count // 20),
        )
        return new_completions >= min_completions or new_polls >= max(
            MIN_POLLS, observations.poll_count // 20, observations.running_count // 10
        )


class DurationLearner:
    """Learns how long each kind of generation renders, and when to poll.

    Every constant scales with `interval_s`, the clock to keep while nothing is known.
    """

    def __init__(self, interval_s: float = 10.0) -> None:
        self._interval_s = interval_s
        self._fixed = fixed_times(interval_s)
        self._states: dict[str, _KeyState] = {}

    def poll_times(self, duration_key: str, urgency: float = 1.0) -> PollTimes:
        """Return the present poll times for `duration_key`; a new object once it has changed.

        `urgency` is what a second of delay costs now, as a multiple of what it costs on average.
        """
        state = self._states.get(duration_key)
        if state is None or state.estimate is None:
            return self._fixed
        if not state.is_confirmed():
            urgency = max(1.0, urgency)  # sparse polls would learn too late
        times = state.times.get(urgency)
        if times is None:
            times = optimal_times(state.estimate, self._interval_s, state.max_interval(), urgency)
            state.times[urgency] = times
        return times

    def on_started(self, duration_key: str) -> None:
        """Record that one more generation of `duration_key` is in flight."""
        self._state_of(duration_key).observations.running_count += 1

    def on_left(self, duration_key: str) -> None:
        """Record that one generation of `duration_key` less is in flight."""
        self._state_of(duration_key).observations.running_count -= 1

    def on_still_running(self, duration_key: str, from_s: float, to_s: float) -> None:
        """Record that a generation known to run at age `from_s` still ran at `to_s`."""
        state = self._state_of(duration_key)
        state.observations.add_still_running(from_s, to_s)
        self._update_drift(state, from_s, to_s, finished=False)

    def on_finished(self, duration_key: str, from_s: float, to_s: float) -> None:
        """Record that a generation known to run at age `from_s` was found ended at `to_s`."""
        state = self._state_of(duration_key)
        half_life = max(HALF_LIFE_COMPLETIONS, 2.0 * state.observations.running_count)
        state.observations.add_finished(from_s, to_s, half_life)
        self._update_drift(state, from_s, to_s, finished=True)

    def estimate_for(self, duration_key: str) -> HazardEstimate | None:
        """Return the estimate for forecasts of `duration_key`; None before its first end was seen."""
        state = self._states.get(duration_key)
        if state is None or not state.observations.completion_count:
            return None
        if state.neutral_estimate is None:
            state.neutral_estimate = estimate_hazard(
                state.observations, state.mean_s, self._interval_s, NEUTRAL
            )
        return state.neutral_estimate

    def dump(self) -> dict[str, Any]:
        """Return what was learned, for `restore` in a later run; JSON can hold it."""
        learned = [
            (name, known) for name, known in self._states.items() if known.observations.completion_count
        ]
        kinds = {name: known.observations.dump() for name, known in learned[-MAX_DURATION_KEYS:]}
        return {"version": DUMP_FORMAT_VERSION, "grid": GRID_PARAMETERS, "kinds": kinds}

    def restore(self, data: Mapping[str, Any]) -> None:
        """Take over what an earlier run dumped; whatever is not that is ignored."""
        if (
            not isinstance(data, dict)
            or data.get("version") != DUMP_FORMAT_VERSION
            or data.get("grid") != GRID_PARAMETERS
        ):
            return
        kinds = data.get("kinds")
        for name, counts in list(kinds.items())[-MAX_DURATION_KEYS:] if isinstance(kinds, dict) else ():
            try:
                observations = Observations.from_dump(counts, CACHED_WEIGHT)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
                continue
            self._states[str(name)] = state = self._new_state(observations)
            self._refit(state)

    def _state_of(self, duration_key: str) -> _KeyState:
        state = self._states.get(duration_key)
        if state is None:
            state = self._states[duration_key] = self._new_state(Observations())
        return state

    def _new_state(self, observations: Observations) -> _KeyState:
        return _KeyState(observations, INITIAL_MEAN_INTERVALS * self._interval_s)

    def _update_drift(self, state: _KeyState, from_s: float, to_s: float, *, finished: bool) -> None:
        """Test the estimate on a poll it has not seen (a cumulative sum, Page 1954), then fit anew."""
        if state.estimate is not None:
            expected_hazard = state.estimate.cumulative_hazard_at(to_s) - state.estimate.cumulative_hazard_at(
                from_s
            )
            constant_hazard = (to_s - from_s) / state.mean_s
            state.drift += _log_likelihood(constant_hazard, finished=finished) - _log_likelihood(
                expected_hazard, finished=finished
            )
            state.drift = max(0.0, state.drift)
            if state.drift > (NEW_DRIFT_THRESHOLD if state.only_cached() else DRIFT_THRESHOLD):
                state.observations.scale(DRIFT_DISCOUNT)
                state.drift = 0.0
                self._refit(state)
                return
        if state.needs_refit():
            self._refit(state)

    def _refit(self, state: _KeyState) -> None:
        state.fitted_completions = state.observations.completion_count
        state.fitted_polls = state.observations.poll_count
        state.estimate = estimate_hazard(state.observations, state.mean_s, self._interval_s)
        state.neutral_estimate = None
        state.mean_s = state.estimate.mean_s
        state.observations.density = state.estimate.density
        state.times.clear()


def _log_likelihood(cumulative_hazard: float, *, finished: bool) -> float:
    """Return the logarithm of the chance to end, or not to end, over a stretch of cumulative hazard."""
    if not finished:
        return -cumulative_hazard
    return log(-expm1(-cumulative_hazard)) if cumulative_hazard > 1e-12 else -28.0
