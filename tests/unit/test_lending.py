"""The account lends permits: never more is in flight than it allows, whoever dies whenever."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pacing import CreateGate, Granted, Lender, LentGate, Verdict
from pipeline.pacing.lending import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

ACCEPTED = Verdict(Outcome.ACCEPTED)


def lender(ceiling: int, orphans: Sequence[str] = ()) -> Lender:
    return Lender(CreateGate(ceiling, interval_s=1.0, random=Random(1)), orphans)


def test_a_slot_is_taken_from_the_grant_to_the_report() -> None:
    made = lender(3)
    assert made.grant("a", 0.0, 5) == Granted(3, float("inf"))
    assert made.grant("b", 0.0, 1).permits == 0
    made.report("a", 1.0, 3, [ACCEPTED] * 3)
    assert made.grant("b", 1.0, 1).permits == 0
    made.report("a", 2.0, 1, [])
    assert made.grant("b", 2.0, 5).permits == 2


def test_unused_permits_come_back() -> None:
    made = lender(2)
    gate = LentGate()
    gate.granted(made.grant("a", 0.0, 2).permits)
    assert gate.may_start(0.0, 0) == 0.0
    gate.started(0.0)
    gate.give_back(1)
    assert gate.may_start(0.0, 0) == float("inf")
    made.report("a", 0.1, 0, gate.verdicts())
    assert made.grant("b", 0.1, 2).permits == 1


def test_the_slots_of_the_dead_come_back_with_their_rows() -> None:
    made = lender(4)
    made.grant("a", 0.0, 4)
    made.report("a", 1.0, 3, [ACCEPTED] * 3)
    made.gone("a", 2.0, ["x", "y", "z"])
    assert made.permits == 0
    assert made.grant("b", 2.0, 4).permits == 1
    made.took("b", ["x", "y"])
    assert made.in_flight == 3
    made.report("b", 3.0, 0, [ACCEPTED])
    assert made.in_flight == 1
    made.took("b", ["z"])
    made.report("b", 4.0, 0, [])
    assert made.in_flight == 0


def test_what_was_in_flight_before_counts_from_the_beginning() -> None:
    assert lender(2, ["x", "y"]).grant("a", 0.0, 1).permits == 0
    assert lender(2, ["x"]).grant("a", 0.0, 2).permits == 1


def test_one_worker_refusal_slows_all() -> None:
    made = lender(50)
    granted = made.grant("a", 0.0, 50).permits
    assert 0 < granted < 50
    made.report(
        "a", 1.0, 0, [Verdict(Outcome.THROTTLED, 30.0), *[Verdict(Outcome.THROTTLED)] * (granted - 1)]
    )
    assert made.grant("b", 1.0, 1) == Granted(0, 30.0)
    assert made.grant("b", 31.5, 1).permits == 1


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["ask", "send", "end", "die", "take"])), max_size=80
)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6), STEPS)
def test_never_more_in_flight_than_the_ceiling(ceiling: int, steps: list[tuple[int, str]]) -> None:
    """The vendor's count, which includes what a dead worker sent just before it died."""
    made = lender(ceiling)
    permits, flying, orphans = [0] * 3, [0] * 3, 0
    names = ["a", "b", "c"]
    for now, (who, what) in enumerate(steps):
        if what == "ask":
            permits[who] += made.grant(names[who], float(now), 2).permits
        elif what == "send" and permits[who]:
            permits[who] -= 1
            flying[who] += 1
            made.report(names[who], float(now), flying[who], [ACCEPTED])
        elif what == "end" and flying[who]:
            flying[who] -= 1
            made.report(names[who], float(now), flying[who], [])
        elif what == "die":
            sent = flying[who] + permits[who]  # each of its permits was used, unheard
            made.gone(names[who], float(now), [f"{now}.{n}" for n in range(sent)])
            orphans += sent
            permits[who] = flying[who] = 0
        elif what == "take" and orphans:
            key = min(made._orphans)
            made.took(names[who], [key])
            orphans -= 1
            flying[who] += 1
        assert sum(flying) + orphans + sum(permits) <= ceiling
        assert made.in_flight == sum(flying) + orphans
