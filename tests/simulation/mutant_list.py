"""Fifty and more breaks of the rules that keep the promises, each one text for another.

Those marked with a letter and a number undo what mended an example in the list of faults found by use.
"""

from __future__ import annotations

from typing import Final, NamedTuple

Focus = tuple[tuple[str, str], ...]


class Mutant(NamedTuple):
    """In the file `path`, `before` becomes `after`. `focus` are the faults that its rule is about, if any.

    Those of a `cluster` are tried in clusters' worlds.
    """

    name: str
    path: str
    before: str
    after: str
    focus: Focus = ()
    cluster: bool = False


_CREATE: Final = "pipeline/submit/create.py"
_RESULT: Final = "pipeline/client/create_result.py"
_CLIENT: Final = "pipeline/client/client.py"
_BACKEND: Final = "pipeline/ledger/backend.py"
_LEDGER: Final = "pipeline/ledger/ledger.py"
_SPENDING: Final = "pipeline/ledger/spending.py"
_STAGING: Final = "pipeline/storage/local_staging.py"
_PROOF: Final = "pipeline/reconcile/absence_proof.py"
_CONFIRM: Final = "pipeline/poll/confirmation.py"
_POLL: Final = "pipeline/poll/poller_pool.py"
_RESTORED: Final = "pipeline/reconcile/restored_ledger.py"
_PLAN: Final = "pipeline/plan.py"
_STATE: Final = "pipeline/run_state.py"
_CONTEXT: Final = "pipeline/run_context.py"
_DOWNLOADS: Final = "pipeline/download/downloader_pool.py"
_DOWNLOADER: Final = "pipeline/download/downloader.py"

_COORDINATOR: Final = "pipeline/cluster/coordinator.py"
_WORKER: Final = "pipeline/cluster/worker.py"
_LIMITS: Final = "pipeline/cluster/limits.py"
_LEASES: Final = "pipeline/ledger/leases.py"

_REFUSED: Final = "    if status in NOT_ACCEPTED:\n"
_COMMIT: Final = "            submitting = await self._commit_intent(record, submitting)\n"
_NOTE: Final = "            self._note(submitting)\n"
_SEND: Final = "            answered = await self._api.create(body, submitting.correlation_id)\n"
_POST: Final = "            await self._api.create(submitting.body, submitting.correlation_id)\n"


def _premise(name: str, arguments: str) -> tuple[str, str]:
    """Return the head of a premise of the proof, and one that always holds."""
    head = f"def check_{name}({arguments}) -> Missing | None:\n"
    return head, f"{head}    return None\n"


def _at(point: str, *kinds: str) -> Focus:
    return tuple((point, kind) for kind in kinds)


_DOUBT: Final = _at("create", "502 after acceptance")
_ANYTHING: Final = _at("thread", "late")
_KILLED: Final = _at("step", "killed") + _at("life", "killed")
_BEHIND: Final = _at("log", "replica behind")
_LOCK: Final = _at("life", "folder lock lost")
_BACKUP: Final = _at("life", "restored ledger")
_CLOCKS: Final = _at("life", "clock forwards", "clock backwards")

_DEAD: Final = _at("step", "killed") + _at("life", "worker killed")
_NO_COORDINATOR: Final = _at("life", "coordinator killed") + _at("message", "lost")
_NO_DRIVER: Final = _at("life", "driver killed") + _at("orphans", "linger")

_BOTH: Final = "submission: SubmissionInDoubt, evidence: Evidence"

MUTANTS: Final = (
    # The intent before the create.
    Mutant("a create leaves before its intent is committed", _CREATE, _COMMIT, _POST + _COMMIT, _ANYTHING),
    Mutant("an id is used for each submission of a row", _CREATE, "{submission_no}.{nonce}", "1.n", _at("create", "500")),
    Mutant("an unknown outcome is sent again", _CREATE, "                State.IN_DOUBT,", "                State.PENDING,", _DOUBT),
    Mutant("a generation may be two rows' (G27)", "pipeline/ledger/generation_owners.py", "not claims or cursor.rowcount == len(claims)", "True", _at("create", "another row's id")),
    Mutant("a create takes what an earlier one of its row bought", _LEDGER, "after.submission_no if old_state is State.SUBMITTING else 0", "0", _at("create", "another row's id")),
    Mutant("an interrupted create is sent again", _PLAN, "after = mark_interrupted(record) if", "after = mark_resubmitted(record) if", _KILLED),
    # What an answer proves.
    Mutant("an answer to another create is believed", _RESULT, "if response.is_about_another():", "if False:", _at("create", "answer to another")),
    Mutant("an error without id or reason refuses a create", _RESULT, 'failure is not None and not completed and payload.get("error")', "failure is not None and not completed", _at("create", "nameless error after acceptance")),
    Mutant("an error without an id counts like any other", _CONFIRM, "        if status.generation_id:\n            observed.error = status", "        if True:\n            observed.error = status", _at("life", "nameless errors for a while")),
    Mutant("minutes of 404 end a generation", "pipeline/reconcile/in_doubt.py", "if record.completed_at is not None or not (not_charged or is_lost):", "if False:", _at("life", "statuses unknown for a while")),
    Mutant("minutes in which nobody polled count as minutes of errors", "pipeline/poll/confirmation.py", "MIN_LONG_POLLS: Final = 6", "MIN_LONG_POLLS: Final = 2", _at("status", "error after completion") + _at("life", "killed", "stopped and continued") + _at("commit delay", "slow")),
    Mutant("one status known again makes all others missing", "pipeline/reconcile/reconciler_pool.py", "is_missing = key in run.state.missing", "is_missing = run.state.status_known_at > since + interval_s", _at("life", "statuses unknown for a while")),
    Mutant("ten minutes of 404 give a slot back", "pipeline/reconcile/reconciler_pool.py", "SLOT_INTERVALS: Final = 120.0", "SLOT_INTERVALS: Final = 60.0", _at("life", "statuses unknown for a while")),
    Mutant("404 while nothing is known confirms an error", _POLL, "record.completed_at is not None or not is_missing:", "record.completed_at is not None:", _at("status", "error flap") + _at("life", "statuses unknown for a while")),
    Mutant("502 is a refusal", _RESULT, "frozenset({500, 503})", "frozenset({500, 502, 503})", _DOUBT),
    Mutant("504 is a refusal", _RESULT, _REFUSED, "    if status == 504:\n        return RetryableRejection(message, reached=True)\n" + _REFUSED, _at("create", "504 with the id")),
    Mutant("503 is a refusal whatever it names", _RESULT, "reached=True, inference_id=named)", "reached=True)", _at("create", "503 with the id")),
    Mutant("408 is a refusal", _RESULT, "frozenset({500, 503})", "frozenset({500, 503, 408})", _at("create", "408 after acceptance")),
    Mutant("409 is a refusal (B11)", _RESULT, "frozenset({400, 422})", "frozenset({400, 422, 409})", _at("create", "409 after acceptance")),
    Mutant("460 is a refusal (B11)", _RESULT, "frozenset({400, 422})", "frozenset({400, 422, 460})", _at("create", "460 after acceptance")),
    Mutant("499 is a refusal (B11)", _RESULT, "frozenset({400, 422})", "frozenset({400, 422, 499})", _at("create", "499 after acceptance")),
    Mutant("an acceptance without an id is sent again", _RESULT, 'return OutcomeUnknown(f"accepted without an id: {excerpt(body)}", request_id=asked)', 'return RetryableRejection("no id", reached=True)', _at("create", "answer without an id")),
    Mutant("a garbled acceptance is sent again", _RESULT, 'return OutcomeUnknown(f"accepted with an unreadable answer: {excerpt(body)}", request_id=asked)', 'return RetryableRejection("unreadable", reached=True)', _at("create", "garbled answer")),
    Mutant("an answer that never came is a refusal", _CLIENT, 'return OutcomeUnknown(f"the answer never came: {message}")', "return RetryableRejection(message, reached=False)", _at("create", "silence after acceptance")),
    Mutant("a status of another generation is applied (G27)", _CLIENT, "if is_about(payload, generation_id):", "if payload:", _at("status", "of another generation")),
    Mutant("an unknown status is an end", "pipeline/client/responses.py", "return Phase.FAILED if status in FAILED_STATUSES else Phase.UNKNOWN", "return Phase.FAILED", _at("status", "unknown status")),
    # The ledger.
    Mutant("a step ignores the version", "pipeline/ledger/statements.py", '(records.c.version == bindparam("b_version"))', '(records.c.version >= bindparam("b_version"))', _LOCK),
    Mutant("a conflict counts as made", _BACKEND, "outcomes.append(update.after if committed else Conflict(update.after.key))", "outcomes.append(update.after)", _LOCK),
    Mutant("the record of spending is not written", _BACKEND, "for update in updates if update.entry is not None]", "for update in updates if False]", _KILLED),
    Mutant("a lost compare-and-set goes unnoticed", _BACKEND, "            if cursor.rowcount != len(batch):", "            if False:", _LOCK),
    Mutant("doubt gives its money back", _SPENDING, 'SubmissionState.MAYBE_SPENT, "in doubt"', 'SubmissionState.RELEASED, "in doubt"', _DOUBT),
    Mutant("resubmitting gives money back (C12)", _SPENDING, "SubmissionState.MAYBE_SPENT if gave_up", "SubmissionState.RELEASED if gave_up", _DOUBT + _at("user", "resubmit in doubt")),
    Mutant("a generation sets nothing aside (C13)", _SPENDING, "SubmissionState.SPENT if charged else SubmissionState.RESERVED", "SubmissionState.SPENT if charged else SubmissionState.RELEASED", _KILLED),
    Mutant("a budget takes one more", "pipeline/submit/budget.py", "self._committed() - replaced + price > self._limit", "self._committed() - replaced > self._limit", _ANYTHING),
    # Files.
    Mutant("no fsync of a video", _STAGING, "            os.fsync(self._fd)\n", "            pass\n", _ANYTHING),
    Mutant("no fsync of its folder", _STAGING, "        self._store.sync_folders(target.parent)\n        if exists", "        if exists", _ANYTHING),
    Mutant("no fsync of what was found in place", _STAGING, "            files.sync_file(target)", "            pass", _at("life", "clip copied into place")),
    Mutant("no fsync of a new folder's name", "pipeline/storage/local.py", "if folder not in self._synced:", "if False:", _ANYTHING),
    Mutant("a user's file is replaced (F22)", _STAGING, "target, exists = self._target(path, sha256, replaces)", "target, exists = self._store.resolve(path), False\n        target.unlink(missing_ok=True)", _at("life", "users file in the way")),
    Mutant("a page is a video", "pipeline/media/examine.py", 'raise UnplayableVideo("the file begins like no video")', 'extension = "mp4"', _at("cdn", "damaged bytes")),
    Mutant("done before it is published", _DOWNLOADER, "        published = await part.publish(known.path if known and ours else path, replaces=ours)", "        from pipeline.storage.base import FileStamp, PublishedFile as P\n\n        published = P(path, 1, 'x', FileStamp(1))", _ANYTHING),
    Mutant("bytes from before a power cut are gone on with", _STAGING, "if boot and boot != clocks.boot_id():", "if False:", _at("cdn", "stall") + _at("life", "power cut")),
    Mutant("a check of saved files is cancelled in its commit", _DOWNLOADS, "with anyio.CancelScope(shield=True):", "with anyio.CancelScope():", _at("life", "file moved away") + _at("step", "ctrl-c twice") + _at("commit delay", "slow")),
    Mutant("a charge of what was given up is nobody's", "pipeline/reconcile/charges.py", "evidence.log.generations_beside(submission.correlation_id)", "evidence.log.other_generations", _at("create", "silence before acceptance", "silence after acceptance") + _at("user", "resubmit in doubt") + _at("step", "ctrl-c")),
    Mutant("a paid clip of a row that left is not fetched", _PLAN, "retried = record.position >= 0 or is_fetched_again(record)", "retried = record.position >= 0", _at("status", "no url for minutes") + _at("user", "rows edited")),
    Mutant("only the first clip is saved", _DOWNLOADER, "while len(results) < len(urls):", "while len(results) < 1:", _ANYTHING),
    # Polls.
    Mutant("one error is believed (B8)", _CONFIRM, "        if remaining_s > 0:\n            return Unconfirmed(min(remaining_s, self._interval_s))\n", "", _at("status", "error flap")),
    Mutant("a completion is not written down (B9)", _POLL, "status.is_charged and record.completed_at is None:", "False:", _at("status", "error after completion") + _KILLED),
    Mutant("an error after a take-over counts like any other", _CONFIRM, "if key not in self._taken_over:", "if True:", _at("status", "error after completion") + _DEAD + _at("database", "silent for a while") + _at("commit delay", "slow")),
    Mutant("a deadline frees the slot (H28)", _POLL, "        run.state.overdue.add(record.key)\n", "        run.state.overdue.add(record.key)\n        run.state.in_flight.discard(record.key)\n", _ANYTHING),
    Mutant("doubt takes no slot (H28)", _STATE, "return len(self.in_flight) + len(self.in_doubt - self.in_flight)", "return len(self.in_flight)", _DOUBT),
    Mutant("a paid failure is bought again", _PLAN, "return (was_completed(record) or never_proven) and", "return never_proven and", _at("status", "no url for minutes")),
    # Absence.
    Mutant("absence without waiting", "pipeline/reconcile/reconciler.py", "            self.wait_s,\n            self.timer.elapsed_s", "            0.0,\n            self.timer.elapsed_s", _DOUBT),
    Mutant("absence by one pass (A4)", _PROOF, *_premise("passes", "evidence: Evidence"), _DOUBT + _BEHIND),
    Mutant("a pass before the row was due counts", _PROOF, "submission.sent_at is None or (evidence.elapsed_s or 0.0) >= nearly_s", "True", _DOUBT + _BEHIND),
    Mutant("absence in another key's log (A1)", _PROOF, *_premise("key", _BOTH), _DOUBT + _at("life", "key rotated")),
    Mutant("absence in a log that stands still (A3)", _PROOF, *_premise("log_advanced", _BOTH), _DOUBT + _at("life", "log stands still")),
    Mutant("absence in a log that was not read to its end", _PROOF, *_premise("pages", "evidence: Evidence"), _DOUBT + _at("log", "500", "reset")),
    Mutant("absence by this machine's clock (A2)", "pipeline/reconcile/reconciler.py", "clock, now = self.clock(), self.api.vendor_now()", "clock, now = self.clock(), self.wall()", _DOUBT + _CLOCKS),
    Mutant("a create is dated by this machine's clock (A2)", _CREATE, "vendor_sent_at=self._api.vendor_now(),", "vendor_sent_at=self._wall(),", _DOUBT + _CLOCKS),
    Mutant("the vendor's clock goes on in a sleep", "pipeline/client/vendor_clock.py", "return bool(self._offsets) and abs(", "return False and abs(", _DOUBT + _at("life", "suspended")),
    Mutant("a create outlives a sleep", "pipeline/client/connection.py", "if trace.is_too_old():", "if False:", _at("create", "asleep before it leaves")),
    Mutant("a clock that is set back hides a sleep", "pipeline/client/connection.py", "return waited_s > MAX_CONNECT_S or abs(jump_s) > JUMP_S", "return jump_s > MAX_CONNECT_S", _at("create", "asleep before it leaves") + _CLOCKS + _at("life", "killed", "second process")),
    Mutant("a witness that left late says that the clocks are apart", _PROOF, "    newest, now = evidence.log.newest, evidence.now\n", "    newest, now = evidence.log.newest, evidence.now\n    if evidence.clock_error_s:\n        return Missing(Premise.CLOCK, 'apart', 'ask again later', 0.0)\n", _at("create", "asleep before it leaves", "reset before acceptance") + _CLOCKS),
    Mutant("a deadline shortens the proof (A6)", "pipeline/reconcile/reconciler_pool.py", "wait_s = run.deps, run.settings.reconcile_after", "wait_s = run.deps, min(run.settings.reconcile_after, run.settings.timeout)", _DOUBT),
    # A ledger put back from a backup.
    Mutant("an older copy asks nothing (A7)", _RESTORED, "if not forgotten and not (", "if True or not (", _BACKUP),
    Mutant("a submission is noted with its answer", _CREATE, _NOTE + _SEND, _SEND + _NOTE, _BACKUP + _KILLED),
    Mutant("an older copy forgets what rows that left have cost", _RESTORED, "        await ledger.put_submissions(entries_of_unknown_rows(noted, digests, known_ids))\n", "", _BACKUP + _at("user", "rows edited") + _at("step", "killed")),
    Mutant("what is noted and not in the log is pending", _RESTORED, "doubt_forgotten(ledger, find_forgotten(current, noted),", "doubt_forgotten(ledger, [],", _BACKUP),
    Mutant("only rows that were never submitted are forgotten", _RESTORED, "and note.number > record.submission_no", "and record.submission_no == 0", _BACKUP + _at("create", "500")),
    Mutant("an older copy forgets a completion", _RESTORED, "    completed = await _recall_completions(ledger, records, noted)\n", "    completed: Mapping[str, Record] = {}\n", _BACKUP + _at("status", "error after completion")),
    Mutant("an older copy forgets what was charged", _RESTORED, "(sent_at or 0.0) if row.is_charged else None", "None", _BACKUP + _at("status", "error after completion")),
    # Every run ends.
    Mutant("refusals add up to hours between creates", "pipeline/submit/create_limits.py", "min(grown_s, MAX_WAIT_INTERVALS * self._interval_s)", "grown_s", _at("create", "429 with a date")),
    Mutant("the end of a run explains what a pass settles", "pipeline/reconcile/reconciler_pool.py", "        async with self._settling:\n            for record in in_doubt:\n", "        if True:\n            for record in in_doubt:\n", _DOUBT),
    Mutant("a whole part may be of another generation", "pipeline/download/clips.py", 'found.generation in ("", clip.record.generation_id)', "True", _KILLED + _BACKUP),
    Mutant("a poll is planned for what another has ended", "pipeline/poll/poller_pool.py", "record.key in run.deps.schedule and not self._drop_without_key(record, now)", "not self._drop_without_key(record, now)", _at("status", "completed without url")),
    Mutant("nobody is woken", _CONTEXT, "        self._changed.set()\n", "", _ANYTHING),
    Mutant("a run waits for its doubts for ever (E18)", "pipeline/reconcile/reconciler_pool.py", "            if remaining_s <= 0:\n", "            if False:\n", _DOUBT),
    Mutant("a download is counted for ever", _DOWNLOADS, "                    self._run.state.downloading -= 1\n", "", _at("cdn", "503")),
    Mutant("a finished generation is counted for ever", _POLL, "            state.finishing -= 1\n", "", _ANYTHING),
    Mutant("the results lag behind the ledger", _CONTEXT, "        self.state.records[after.key] = after\n        if", "        if", _ANYTHING),
    Mutant("an intent that could not be dated anew is forgotten", _CREATE, "submitting = self.unresolved[record.key] = await self._ledger.commit(record, submitting)", "submitting = await self._ledger.commit(record, submitting)", _at("life", "disk full for a while", "clock forwards") + _at("commit delay", "slow")),
    Mutant("nobody waits for the commit of an outcome", _CREATE, "        with anyio.CancelScope(shield=True):\n            try:", "        after = submitting\n        with self._shielded():\n            try:", _at("life", "disk full for a while", "stopped and continued") + _at("commit delay", "slow")),
    Mutant("a failing ledger crashes a run's end", "pipeline/engine.py", "await self._run_worker(reconciler_pool.wait_until_idle)", "await reconciler_pool.wait_until_idle()", _DOUBT + _at("commit", "disk full")),
    # Many machines.
    Mutant("a dead worker's permits are given back twice", _LIMITS, "range(self._permits.pop(worker, 0))", "range(2 * self._permits.pop(worker, 0))", _DEAD + _at("create", "slow acceptance"), cluster=True),
    Mutant("a dead worker's rows take no slots", _LIMITS, "        self._orphans.update(in_flight_keys)\n", "", _DEAD, cluster=True),
    Mutant("a few quick generations free a doubt's slot", _COORDINATOR, "max(2 * self._longest_render_s, least_s)", "2 * self._longest_render_s or least_s", _at("create", "409 after acceptance"), cluster=True),
    Mutant("a doubt's age goes by a clock that may be set", "pipeline/cluster/heartbeats.py", "now - began[record.correlation_id]", "clocks.wall() - (record.submitted_at or 0.0)", _at("create", "another row's id") + _at("life", "worker clock forwards"), cluster=True),
    Mutant("each worker has the whole concurrency", _LIMITS, "if self._concurrency_limit.start_delay_s(now, self.in_flight) > 0:", "if self._concurrency_limit.start_delay_s(now, self._in_flight.get(worker, 0)) > 0:", _ANYTHING, cluster=True),
    Mutant("each lease has the whole budget", "pipeline/cluster/budget.py", "        left: dict[str, str] = {}\n", "        left: dict[str, str] = {}\n        self._budget = Budget(self._config.settings.max_cost, price_of=self._config.price_of_key)\n", _ANYTHING, cluster=True),
    Mutant("a row under way is submitted again beyond the budget", _COORDINATOR, "            if self._budget.is_overdrawn:\n", "            if False:\n", _BACKUP + _at("life", "flood of refusals"), cluster=True),
    Mutant("a row under way sets nothing aside for its next submission", "pipeline/cluster/budget.py", "if price is not None and may_submit and record.state in IN_FLIGHT_STATES:", "if False:", _DEAD, cluster=True),
    Mutant("a coordinator forgets what was spent before", _COORDINATOR, "            if self._budget.has_limit:\n                self._budget.load(await self._ledger.submissions())\n", "", _NO_COORDINATOR, cluster=True),
    Mutant("a coordinator of an earlier epoch lends on", _LEASES, "if self._current_epoch(cursor) != epoch:", "if False:", _NO_DRIVER, cluster=True),
    Mutant("leases outlive their epoch", _LEASES, "            cursor.execute(self._sql.revoke_all, (batch,))\n", "", _NO_DRIVER, cluster=True),
    Mutant("a row that another worker submitted is pending", _WORKER, "record.evolve(State.IN_DOUBT, doubted_at=clocks.wall(), failure=failure)", "record.evolve(State.PENDING, correlation_id='')", _DEAD, cluster=True),
)  # fmt: skip
"""All mutants, by what they break."""
