"""States of runs by the histories of their jobs: whether they wait, go on or have ended, whatever they said before.

A run's own words are those of its last attempt. They hold until a job has it that was submitted, began or was put back
after they were written; how it ended then becomes how it had ended *before* (`Run.before`).
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from o2o.runs.recording.failures import RETRYABLE
from o2o.sweep.ledger.slurm import PATIENCE_SECONDS
from o2o.sweep.surveying.survey import STALLED_SECONDS, End, Seen, SeenRun

UNBEGUN = (Seen.PLANNED, Seen.QUEUED, Seen.WAITING)
UNDER_WAY = (Seen.RUNNING, Seen.STALLED)

_WITH_A_JOB = (Seen.QUEUED, Seen.WAITING, Seen.RUNNING)
_ENDED = (Seen.STALLED, Seen.INTERRUPTED, Seen.FAILED, Seen.DONE)


def hear(run: SeenRun, launched_at: str, history: Sequence[dict[str, Any]]) -> None:
    """Fills in what the history of its newest job, which was launched then, says of an unfinished run."""
    if run.state is Seen.DAMAGED:
        return
    if run.state is not Seen.RUNNING and _older(run, launched_at):
        put_back(run, Seen.QUEUED)
    endings = [row for row in history if row["event"] == "ended"]
    run.spent = any(run.launched and run.launched.directory in _beyond_help(row) for row in endings)
    last = history[-1] if history else {}
    match last.get("event"):
        case "started":
            if run.state is not Seen.RUNNING and not run.spent and _older(run, last["at"]):
                if _may_live(last):
                    put_back(run, Seen.WAITING)
                else:
                    put_back(run, Seen.STALLED, "its job died before the run began")
        case "cancelled":
            if run.state in UNBEGUN:
                run.state, run.note = Seen.CANCELLED, "its job was cancelled"
        case "unanswered":
            waited_for = age(last["at"]) < PATIENCE_SECONDS + STALLED_SECONDS
            if waited_for and _goes_on(run) and not _begun_since(run, last):
                if run.state in UNDER_WAY:
                    run.state, run.note = Seen.STALLED, _process_ended(last)
                put_back(
                    run,
                    Seen.WAITING,
                    "its process has ended; its job waits for SLURM's answer to be put back",
                )
        case "ended" | "requeued" | "not requeued" if endings and not _begun_since(run, last):
            _hear_end(run, endings[-1], last)


def put_back(run: SeenRun, state: Seen, note: str = "") -> None:
    """A job has the run, or is to have it: how it ended is how it ended before."""
    if run.state in _ENDED and run.before is None:
        run.before = End(run.state, run.failure, run.note)
    run.state, run.failure, run.note = state, None, note


def left(run: SeenRun, note: str) -> None:
    """No job has the run, or ever will: it is as it was before it was given to one, with a word on that."""
    run.state, run.note = Seen.PLANNED, note
    settle(run)
    if run.before is not None:
        before, run.before = run.before, None
        run.state, run.failure, run.note = before.state, before.failure, f"{before.note}\n{note}".strip()


def settle(run: SeenRun) -> None:
    """Where no job has a redo, or its job has ended before it began: the earlier result stands, with a word on that."""
    if run.before is not None and run.before.state is Seen.DONE and run.state not in _WITH_A_JOB:
        run.note = f"its redo has not begun{run.note and ': '}{run.note}"
        run.state, run.failure, run.before = Seen.DONE, None, None


def age(at: str) -> float:
    """The seconds since then."""
    return (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()


def _hear_end(run: SeenRun, ended: dict[str, Any], last: dict[str, Any]) -> None:
    """Returns the state of the run by the last end in the history and the notes after it."""
    failure = ended.get("failure")
    reason = ended.get("reason") or failure or f"exit code {ended.get('exit_code')}"
    decision = ended.get("decision")
    if decision == "requeued" and last["event"] != "not requeued":
        if _goes_on(run):
            if run.state in UNDER_WAY:
                run.state, run.failure, run.note = Seen.STALLED, failure, _process_ended(ended)
            put_back(run, Seen.QUEUED, f"requeued: {reason}")
    elif decision in ("requeued", "given up"):
        told = f"not requeued: {last['reason']}" if decision == "requeued" else reason
        if run.state in (*UNBEGUN, *UNDER_WAY):
            run.state, run.failure, run.note = Seen.FAILED, failure, f"its job ended: {told}"
        elif not run.spent:
            run.failure, run.note = run.failure or failure, f"{run.note}\nits job ended: {told}".strip()
    elif decision == "done" and run.state in UNBEGUN:
        left(run, "its job has ended")
    elif decision == "cancelled" and run.state in (*UNBEGUN, *UNDER_WAY):
        run.state, run.note = Seen.CANCELLED, "its job was cancelled"


def _goes_on(run: SeenRun) -> bool:
    """Whether its job will try it again if it is tried again itself."""
    again = run.state in (*UNBEGUN, *UNDER_WAY, Seen.INTERRUPTED) or run.failure in RETRYABLE
    return again and not run.spent


def _beyond_help(ended: dict[str, Any]) -> list[str]:
    """The runs that failed in an attempt so that its job leaves them out from then on."""
    return [run for run, failure in (ended.get("failed") or {}).items() if failure not in RETRYABLE]


def _older(run: SeenRun, at: str) -> bool:
    """Whether the run's last sign of life, which is noted to the second, was before that time."""
    return run.alive_at is None or run.alive_at < datetime.fromisoformat(at).replace(microsecond=0)


def _begun_since(run: SeenRun, event: dict[str, Any]) -> bool:
    return run.alive_at is not None and run.alive_at > datetime.fromisoformat(event["at"])


def _process_ended(event: dict[str, Any]) -> str:
    return f"its process ended with exit code {event.get('exit_code')}"


def _may_live(started: dict[str, Any]) -> bool:
    """Whether the process of a job may be there: seen where it is this machine's, else for as long as others are."""
    if started.get("node") == platform.node():
        return Path(f"/proc/{started.get('pid')}").exists()
    return age(started["at"]) < STALLED_SECONDS
