"""The command `why`: the class of a failure, the end of the traceback and of the log, and what to do about it.

A run that a job has again is told too, by how it ended before, and so is one that was to have a job and has none.
Runs that ended alike are told together, so that one mistake in a thousand runs is one answer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from o2o.machine import terminal
from o2o.machine.counting import counted, named_seeds
from o2o.runs.directory.layout import ATTEMPTS, CHECKPOINTS, EVAL, FINETUNE, read_object
from o2o.runs.recording.failures import Failure
from o2o.sweep.following.logs import log_of, tail
from o2o.sweep.following.status import exit_code, look
from o2o.sweep.following.status_table import span
from o2o.sweep.following.summary import kind
from o2o.sweep.surveying.survey import Seen, SeenRun

TRACEBACK_LINES, LOG_LINES = 14, 12
TOLD = 5
"""So many kinds of ends are told in full."""

STOPPED = (Seen.FAILED, Seen.DAMAGED, Seen.STALLED, Seen.INTERRUPTED, Seen.CANCELLED)

_AGAIN = "`retry` goes on from the last checkpoint"
_FROM_THE_BEGINNING = (
    "its checkpoints are not there: `retry --anyway` starts it again from the beginning, without the curves that are "
    "there"
)
_ADVICE = {
    Failure.INFRASTRUCTURE: f"{_AGAIN}. If it is the same node each time, leave that out: --set exclude=NODE",
    Failure.TIME: f"{_AGAIN}. More time for a job: --set timeout_min=…",
    Failure.PREEMPTION: f"SLURM puts the job back by itself. If it has not, {_AGAIN}",
    Failure.MEMORY: f"{_AGAIN}: with fewer seeds a job, --seeds-per-job …, or with more memory, --set mem_gb=…",
    Failure.NON_FINITE: (
        "it would end the same way again. train.jsonl shows what grew before it (q_mean, critic_loss, "
        "gradient_over_adam); another value is another run. After a change of the code: `retry --anyway`"
    ),
    Failure.CODE: "mend what the traceback names, then `retry --anyway`; it would end the same way again",
}
_ADVICE_BY_STATE = {
    Seen.STALLED: f"it was killed without a word, or lives where its clock is wrong. {_AGAIN}",
    Seen.INTERRUPTED: f"it was stopped after a checkpoint. {_AGAIN}, and so does the command that launched it",
    Seen.CANCELLED: f"its job was cancelled. {_AGAIN}",
    Seen.DONE: "nothing: the earlier result stands; the command that launched it asks for the redo again",
    Seen.PLANNED: "`retry` gives it a job, and so does the command that launched it",
    Seen.DAMAGED: "remove the damaged file, or the run's directory to run it from the start",
}


def run_why(root: Path, filters: Sequence[str]) -> int:
    """`why`: tells of the chosen runs that stopped; returns the exit code."""
    runs, notes = look(root, filters)
    ends: dict[tuple[str, ...], list[SeenRun]] = defaultdict(list)
    for run in runs:
        had_failed = run.before is not None and run.before.state is not Seen.DONE
        remarked = run.state in (Seen.PLANNED, Seen.DONE) and run.note
        if run.state in STOPPED or had_failed or remarked:
            before = (run.before.state, run.before.failure or "", kind(run.before.note)) if run.before else ()
            ends[run.state, run.failure or "", kind(run.note), *before].append(run)
    ordered = sorted(ends.values(), key=lambda alike: (alike[0].state in STOPPED, len(alike)), reverse=True)
    blocks = [_told(root, alike) for alike in ordered[:TOLD]]
    if len(ordered) > TOLD:
        kinds, rest = counted(len(ordered) - TOLD, "more kind"), sum(map(len, ordered[TOLD:]))
        blocks.append(f"… and {kinds} of ends, of {counted(rest, 'run')}; choose with a filter")
    if not ordered:
        none = f"of {counted(len(runs), 'run')} none failed or stopped"
        blocks = [none if runs else f"{root}: no runs match"]
    print(terminal.fitted("\n\n".join(blocks + notes)))
    return exit_code(runs)


def _told(root: Path, alike: Sequence[SeenRun]) -> str:
    run = alike[0]
    attempt = last_attempt(run)
    lines = _where(root, alike)
    steps = sorted(run.step for run in alike if run.step is not None)
    place = f" at step {span(steps)}" if steps else ""
    where = f", attempt {attempt['attempt']} on {attempt.get('host', 'an unknown host')}" if attempt else ""
    since = (
        f", silent since {run.alive_at:%Y-%m-%d %H:%M} UTC"
        if run.state is Seen.STALLED and run.alive_at
        else ""
    )
    lines += _end(f"{run.state}", run.failure, run.note, "" if run.before else f"{place}{where}{since}")
    if run.before:
        before = run.before
        lines += _end(f"before that: {before.state}", before.failure, before.note, f"{place}{where}{since}")
    if traceback := str(attempt.get("traceback") or "").rstrip().splitlines():
        lines += [f"traceback, in {_file(root, run, attempt)}:", *_end_of(_own(traceback), TRACEBACK_LINES)]
    log = log_of(root, run)
    if log is not None and (said := tail(log, LOG_LINES)):
        lines += [f"log, in {log}:", *(f"  {line}" for line in said)]
    if run.state in (Seen.QUEUED, Seen.WAITING):
        lines.append("what to do: nothing, a job has it again")
    else:
        advice = _ADVICE.get(Failure(run.failure)) if run.failure in set(Failure) else None
        told = advice or _ADVICE_BY_STATE.get(run.state, _AGAIN)
        if curves_without_checkpoints(run):
            told = told.replace(_AGAIN, _FROM_THE_BEGINNING)
        lines.append(f"what to do: {told}")
    return "\n".join(lines)


def curves_without_checkpoints(run: SeenRun) -> bool:
    """Whether a finetuning has evaluations and no folder of checkpoints, as in a copy without them."""
    evaluations = run.path / EVAL
    begun = evaluations.is_file() and evaluations.stat().st_size > 0
    return run.phase == FINETUNE and begun and not (run.path / CHECKPOINTS).is_dir()


def _end(state: str, failure: str | None, note: str, where: str) -> list[str]:
    kind_of_failure = f" ({failure})" if failure else ""
    return [f"{state}{kind_of_failure}{where}", *(f"  {line}" for line in note.strip().splitlines())]


def last_attempt(run: SeenRun) -> dict[str, Any]:
    """Returns the notes of the run's newest attempt; empty where there is none that can be read."""
    numbers = [int(path.stem) for path in (run.path / ATTEMPTS).glob("*.json") if path.stem.isdecimal()]
    try:
        found = read_object(run.path / ATTEMPTS / f"{max(numbers)}.json") if numbers else None
    except (OSError, ValueError):
        return {}
    return {"attempt": max(numbers)} | found if found else {}


def _where(root: Path, alike: Sequence[SeenRun]) -> list[str]:
    cells: dict[Path, list[int]] = defaultdict(list)
    for run in alike:
        cells[run.cell.path].append(run.seed)
    lines = [f"{path.relative_to(root)}: {named_seeds(numbers)}" for path, numbers in cells.items()]
    if len(lines) > TOLD:
        lines[TOLD:] = [f"… and {counted(len(lines) - TOLD, 'more cell')}"]
    return lines


def _file(root: Path, run: SeenRun, attempt: dict[str, Any]) -> Path:
    return run.path.relative_to(root) / ATTEMPTS / f"{attempt['attempt']}.json"


def _own(traceback: Sequence[str]) -> list[str]:
    """A traceback without the frames of installed packages, whose files say all that there is."""
    kept: list[str] = []
    foreign = False
    for line in traceback:
        if frame := re.match(r'\s*File "(.*)", line \d+', line):
            foreign = bool(re.search(r"[/\\](site|dist)-packages[/\\]|^<frozen ", frame[1]))
        elif not line.startswith("    "):
            foreign = False
        if not foreign and not line.startswith(("---", "For simplicity, JAX has removed")):
            kept.append(line)
    return kept if any('File "' in line for line in kept) else list(traceback)


def _end_of(lines: Sequence[str], most: int) -> list[str]:
    shown = list(lines) if len(lines) <= most else ["…", *lines[-most:]]
    return [f"  {line}" for line in shown]
