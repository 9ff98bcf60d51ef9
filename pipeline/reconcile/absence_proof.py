"""Proof of absence: when a submission that the vendor's log does not show was never accepted. Pure.

A row in doubt is submitted again only when this proof holds, since a wrong one pays twice. Each premise is
one function below; each returns None where it holds, else what is missing and what would supply it.
`docs/explanation/paid-once.md` says why each of them is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.reconcile.charges import check_charges, no_second_source
from pipeline.reconcile.evidence import (
    BY_HAND,
    CLOCK_TOLERANCE_S,
    DATE_HEADER_ERROR_S,
    MARGIN_S,
    Missing,
    Premise,
)
from pipeline.submit.create import sending_process

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.reconcile.evidence import Evidence, SubmissionInDoubt, Witness
    from pipeline.reconcile.request_log import LogPass

PASS_GAP_SHARE: Final = 0.1
"""How far apart two passes have to be, as a share of the waiting time."""

ANONYMOUS_SPAN_S: Final = 5.0
"""How near to the submission a log row without a correlation id may be the submission itself.

The error of the vendor's time, with room: other programs may use the key without an id of ours."""


def prove_absence(submission: SubmissionInDoubt, evidence: Evidence) -> tuple[Missing, ...]:
    """Return the premises that do not hold; none missing is the proof that it was never accepted."""
    found = (
        check_name(submission),
        check_key(submission, evidence),
        check_pages(evidence),
        check_window(submission, evidence),
        check_anonymous(submission, evidence),
        check_witnesses(submission, evidence),
        check_clock(evidence),
        check_log_advanced(submission, evidence),
        check_passes(evidence),
        check_time(evidence),
    )
    return tuple(missing for missing in found if missing is not None)


def is_first_absence(submission: SubmissionInDoubt, evidence: Evidence) -> bool:
    """Return whether a pass that does not show the submission may count as the first of two.

    A pass from before the row was due proves nothing: if it counted, the second pass alone would decide, and
    that one may have met a replica that is behind. An undated submission is dated by its first absence.
    """
    checks = (
        check_key(submission, evidence),
        check_pages(evidence),
        check_window(submission, evidence),
        check_witnesses(submission, evidence),
    )
    if submission.correlation_id in evidence.log.rows or any(checks):
        return False
    nearly_s = evidence.wait_s * (1.0 - PASS_GAP_SHARE)
    return submission.sent_at is None or (evidence.elapsed_s or 0.0) >= nearly_s


def check_name(submission: SubmissionInDoubt) -> Missing | None:
    """The log can show a submission only by its name, which one that was taken over by hand does not have."""
    if submission.correlation_id:
        return None
    return Missing(Premise.NAME, "it was taken over by its generation, and has no name in the log", BY_HAND)


def check_key(submission: SubmissionInDoubt, evidence: Evidence) -> Missing | None:
    """The log shows the requests of one key at one address: it has to be the submission's."""
    if not submission.key_id or not submission.api_url:
        return Missing(Premise.KEY, "it is not known which key sent it", BY_HAND)
    if submission.api_url != evidence.log.api_url:
        return Missing(
            Premise.KEY,
            f"it was sent to {submission.api_url}, and the log is that of {evidence.log.api_url}",
            f"run again with --base-url {submission.api_url}",
        )
    # The log of another key shows nothing of this submission, accepted or not.
    if submission.key_id != evidence.log.key_id:
        return Missing(
            Premise.KEY,
            "it was sent with another key, whose requests this log does not show",
            "run again with that key, or `veobatch reconcile` with AIMLAPI_MANAGEMENT_KEY set",
        )
    return None


def check_pages(evidence: Evidence) -> Missing | None:
    """The pass has to reach the log's end, over pages that overlap."""
    log = evidence.log
    if log.complete:
        return None
    message = f"the log could not be read to its end: {log.error or 'the pass was cut short'}"
    if log.refused:
        return Missing(Premise.PAGES, message, "use a key that may read the log")
    return Missing(Premise.PAGES, message, "ask again later", 0.0)


def check_window(submission: SubmissionInDoubt, evidence: Evidence) -> Missing | None:
    """The windows that were read have to cover the submission, with a margin on either side."""
    span = evidence.span(submission)
    if span is None:
        return Missing(Premise.WINDOW, "nothing says when it was sent", "ask again later", 0.0)
    covered_to = span[0]
    for start, end in sorted(evidence.log.windows):
        covered_to = max(covered_to, end) if start <= covered_to else covered_to
    if covered_to >= span[1]:
        return None
    return Missing(Premise.WINDOW, "the log was not read around its time", "ask again later", 0.0)


def check_anonymous(submission: SubmissionInDoubt, evidence: Evidence) -> Missing | None:
    """A request of that moment and model that carries no correlation id may be this very one."""
    sent_at, span_s = submission.sent_at, ANONYMOUS_SPAN_S + evidence.clock_error_s
    for row in evidence.log.anonymous:
        # Where a time is missing, the row counts as near: to be in doubt for longer costs nothing.
        near = sent_at is None or row.at is None or abs(row.at - sent_at) <= span_s
        same_model = not row.model or not submission.model or row.model == submission.model
        if near and same_model and row.inference_id not in evidence.known_generations:
            return Missing(
                Premise.ANONYMOUS,
                f"the log has a request of that moment without a correlation id: {row.inference_id}",
                "if it is this row's, `adopt` takes it over",
            )
    return None


def check_witnesses(submission: SubmissionInDoubt, evidence: Evidence) -> Missing | None:
    """The pass has to show what must be in the log: every submission of ours that is long finished."""
    hidden = hidden_witnesses(evidence.other_witnesses(submission), evidence.log)
    if not hidden:
        return None
    message = f"the log does not show {len(hidden)} generation(s) of ours that are long finished"
    return Missing(Premise.WITNESSES, message, "the log is behind: ask again later", 0.0)


def check_clock(evidence: Evidence) -> Missing | None:
    """The log may not be ahead of the vendor's `Date` headers.

    Witnesses whose times are apart make no such statement: they widen the comparisons (`clock_error_s`).
    """
    newest, now = evidence.log.newest, evidence.now
    if newest is None or now is None or newest - now <= CLOCK_TOLERANCE_S:
        return None
    message = f"the log's times are {newest - now:.0f} s ahead of the vendor's clock"
    return Missing(Premise.CLOCK, message, "ask again later", 0.0)


def check_log_advanced(submission: SubmissionInDoubt, evidence: Evidence) -> Missing | None:
    """Something has to show that the log went on beyond the moment by which the row had to appear in it.

    That takes a witness submitted at or after the row, and a row of anybody's made after the moment by which
    the row had to appear: the log may have stopped between the two. Where it shows less, the account's
    charges have to agree; an API without such a call leaves it to the witness.
    """
    charges = evidence.charges
    seen = _reaches_before(submission, evidence) and _seen_after(submission, evidence)
    # A log that stopped before the row was due shows every older row and still proves nothing.
    if seen and (_is_live(submission, evidence) or (charges is not None and charges.not_offered)):
        return None
    if charges is None or charges.not_offered or charges.error:
        expected = any(_is_after(submission, w, evidence) for w in evidence.other_witnesses(submission))
        return no_second_source(charges, witness_expected=expected and not seen)
    return check_charges(submission, evidence, charges)


def hidden_witnesses(witnesses: Iterable[Witness], log: LogPass) -> list[Witness]:
    """Return those that the log has to show by now, and does not."""
    return [w for w in witnesses if w.due and _is_covered(w, log) and w.correlation_id not in log.rows]


def _is_covered(witness: Witness, log: LogPass) -> bool:
    at = witness.sent_at
    return at is not None and any(start + MARGIN_S <= at <= end - MARGIN_S for start, end in log.windows)


def _seen_after(submission: SubmissionInDoubt, evidence: Evidence) -> bool:
    """Return whether the log shows a witness that was submitted at or after the row."""
    shown = (w for w in evidence.other_witnesses(submission) if w.correlation_id in evidence.log.rows)
    return any(_is_after(submission, witness, evidence) for witness in shown)


def _is_after(submission: SubmissionInDoubt, witness: Witness, evidence: Evidence) -> bool:
    """Compare by the vendor's clock, or by the order in which this process submitted both."""
    order, error_s = submission.order, evidence.clock_error_s
    # Of two creates the earlier may have left after the other, where one is known to have left late.
    if not error_s and order is not None and witness.order is not None and witness.order > order:
        return True
    if submission.sent_at is None or witness.sent_at is None:
        return False
    # Two processes may tell the vendor's time by a second apart.
    process = sending_process(submission.correlation_id)
    if not process or process != sending_process(witness.correlation_id):
        error_s += DATE_HEADER_ERROR_S
    return witness.sent_at >= submission.sent_at + error_s


def _is_live(submission: SubmissionInDoubt, evidence: Evidence) -> bool:
    """Return whether the log has a row from after the moment by which the submission had to appear in it."""
    sent_at, newest = submission.latest_sent_at, evidence.log.newest
    if sent_at is None or newest is None:
        return False
    return newest >= sent_at + evidence.wait_s + DATE_HEADER_ERROR_S + evidence.clock_error_s


def _reaches_before(submission: SubmissionInDoubt, evidence: Evidence) -> bool:
    """Return whether the log reaches back beyond the submission, which retention may have cut off."""
    if not evidence.is_old(submission):
        return True
    sent_at, oldest = submission.latest_sent_at, evidence.log.oldest
    if sent_at is None or oldest is None:
        return False
    return oldest <= sent_at - evidence.clock_error_s


def check_passes(evidence: Evidence) -> Missing | None:
    """Two passes some time apart have to agree: one may have met a replica that is behind."""
    # Replicas lag by seconds to minutes; a tenth of the whole wait lets one that was behind catch up.
    gap_s = evidence.wait_s * PASS_GAP_SHARE
    apart_s = evidence.apart_s
    if apart_s is not None and apart_s >= gap_s:
        return None
    remaining_s = gap_s - (apart_s or 0.0)
    return Missing(
        Premise.PASSES, "one reading is not enough", f"ask again in {remaining_s:.0f} s", remaining_s
    )


def check_time(evidence: Evidence) -> Missing | None:
    """It has to be absent for as long as a generation and the log's lag can take together."""
    elapsed_s = evidence.elapsed_s or 0.0
    if evidence.elapsed_s is not None and elapsed_s >= evidence.wait_s:
        return None
    remaining_s = evidence.wait_s - elapsed_s
    message = f"absence proves nothing before {evidence.wait_s:.0f} s have passed"
    return Missing(Premise.TIME, message, f"ask again in {remaining_s:.0f} s", remaining_s)
