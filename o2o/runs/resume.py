"""Where a phase left off: its members' checkpoints, when they are due, and which one all members go on from."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from o2o.config.schema import Config
from o2o.machine.signals import Interruption
from o2o.replay.buffer import Online, Replay
from o2o.runs.directory.layout import CHECKPOINTS, REWOUND
from o2o.runs.identity import run_directory
from o2o.runs.lock import Leases
from o2o.runs.recording.recorder import Recorder
from o2o.runs.sources import code_hash
from o2o.training.checkpoint import CheckpointError, Checkpoints
from o2o.training.reports import Report, Resumed, Sums
from o2o.training.seeds import Members

_COUNT = np.zeros((), np.int64)
_START = -1


def store_of(config: Config) -> Checkpoints:
    """Returns the checkpoints of a run."""
    return Checkpoints(run_directory(config) / CHECKPOINTS)


def cohort(configs: Sequence[Config]) -> list[Config]:
    """Returns the runs that can go on side by side, from the step that most of them have a whole checkpoint of.

    Runs of one job stand apart where some failed or were added later; the rest is for another cohort.
    """
    if len(configs) == 1:
        return list(configs)
    steps = [store_of(config).readable() or {_START} for config in configs]
    frequency = Counter(step for own in steps for step in own)
    common = max(frequency, key=lambda step: (frequency[step], step))
    return [config for config, own in zip(configs, steps, strict=True) if common in own]


class Checkpointer:
    """Saves a phase at its safe points, every now and then and when it is asked to stop."""

    def __init__(
        self,
        configs: Sequence[Config],
        members: Members,
        replay: Replay,
        recorder: Recorder,
        stop: Interruption,
        leases: Leases,
    ):
        """Names the members' checkpoints; nothing is read or written yet."""
        self._configs, self._members, self._replay = configs, members, replay
        self._recorder, self._stop, self._leases = recorder, stop, leases
        self._stores = [store_of(c) for c in configs]
        self._rows_saved, self._checksums = 0, [0] * members.count
        self._last, self._last_step = time.monotonic(), 0

    def restore(
        self, states: Sequence[Any], sums: Sums, environments: Sequence[dict[str, np.ndarray]] = ()
    ) -> tuple[list[Any], Resumed] | None:
        """Returns the members' states at the newest step that all have a good checkpoint of, and where the phase stood.

        `states`, `sums` and `environments` (snapshots) are what each member's should look like. The records are rewound
        to that step. None where there is no such step; the records are then emptied.
        """
        other = {
            "updates": _COUNT,
            "reported": _COUNT,
            "sums": sums,
            "rows": _COUNT,
            "rows_checksum": _COUNT,
            "records": dict.fromkeys(REWOUND, _COUNT),
            "seconds": dict.fromkeys(self._recorder.seconds, np.zeros(())),
            "code": _code(self._configs[0]),
        }
        like: list[dict[str, Any]] = [{"state": state, **other} for state in states]
        action = np.zeros(self._replay.action_size, np.float32)
        for own, snapshot in zip(like, environments, strict=False):
            own |= {"action": action, "environment": snapshot}
        common = set.intersection(*(set(store.steps()) for store in self._stores))
        for step in sorted(common, reverse=True):
            try:
                found = [store.load(step, own) for store, own in zip(self._stores, like, strict=True)]
                online = self._online(found) if environments else []
                self._recorder.resume(
                    step,
                    [{file: int(length) for file, length in tree["records"].items()} for tree in found],
                    {part: float(seconds) for part, seconds in found[0]["seconds"].items()},
                    same_code=all(np.array_equal(tree["code"], _code(self._configs[0])) for tree in found),
                )
            except (CheckpointError, ValueError) as error:
                print(f"a checkpoint is refused: {error}", file=sys.stderr)
                self._recorder.event("checkpoint refused", step=step, reason=str(error))
                continue
            for store in self._stores:
                store.forget(after=step)  # or a later step's would be taken for this future's
            self._rows_saved = int(found[0]["rows"])
            self._checksums = [int(tree["rows_checksum"]) for tree in found]
            self._last_step = step
            resumed = Resumed(
                step,
                int(found[0]["updates"]),
                bool(found[0]["reported"]),
                [tree["sums"] for tree in found],
                online,
                [tree["action"] for tree in found if environments],
                [tree["environment"] for tree in found if environments],
            )
            return [jax.tree.map(jnp.asarray, tree["state"]) for tree in found], resumed
        self.forget()
        self._recorder.begin()
        return None

    def due(self, step: int) -> bool:
        """Returns whether the phase should pause after `step`, which is shown, to be saved or to end."""
        self._recorder.reached(step)
        settings = self._configs[0].execution.checkpoint
        return (
            self._stop.requested
            or self._leases.lost
            or time.monotonic() - self._last >= settings.interval_seconds
            or (settings.interval_steps is not None and step - self._last_step >= settings.interval_steps)
        )

    def save_if_due(self, report: Report) -> None:
        """Saves if that is due, and obeys a request to stop. Whatever the report told must be in the records."""
        # Not at the step that was resumed from: a kill between two members' saves must not leave two kinds of it.
        if self.due(report.step) and report.step > self._last_step:
            self.save(report)
        self._stop.obey()

    def save(self, report: Report, reported: bool = True, without: Collection[int] = ()) -> None:
        """Saves all members but those `without`; `reported` says whether a stop's report is in the records.

        Raises:
            LostError: if a run directory is no longer ours.
        """
        self._leases.check()
        self._last, self._last_step = time.monotonic(), report.step
        if report.online and not report.environments:
            return  # environments that cannot be saved: an interrupted phase starts again
        states = self._members.values(report.state)
        offsets = self._recorder.offsets()
        new_rows = self._new_rows(report)
        for i, store in enumerate(self._stores):
            if i in without:
                continue
            done = report.is_stop and reported
            tree: dict[str, Any] = {"state": states[i], "updates": report.updates, "records": offsets[i]}
            tree |= {
                "seconds": self._recorder.seconds,
                "code": _code(self._configs[0]),
                "reported": int(done),
            }
            tree["sums"] = jax.tree.map(np.zeros_like, report.sums[i]) if done else report.sums[i]
            if report.online:
                tree |= {"action": report.actions[i], "environment": report.environments[i]}
                self._checksums[i] = store.append_rows(new_rows[i], self._rows_saved, self._checksums[i])
            rows = {"rows": self._rows_saved + len(new_rows[i]), "rows_checksum": self._checksums[i]}
            store.save(report.step, tree | rows)
        self._rows_saved += len(new_rows[0])

    def forget(self) -> None:
        """Drops all checkpoints, of a phase that is done or starts again."""
        for store in self._stores:
            store.forget()

    def _new_rows(self, report: Report) -> list[np.ndarray]:
        """Returns each member's rows since the last checkpoint."""
        if not report.online:
            return [np.zeros((0, 0), np.float32)] * self._members.count
        since = [
            self._replay.since(online, self._rows_saved, report.step)
            for online in self._members.values(report.online)
        ]
        return [np.asarray(rows) for rows in since]

    def _online(self, found: Sequence[dict[str, Any]]) -> list[Online]:
        env_steps = self._configs[0].finetune.env_steps
        width = self._replay.row_width
        return [
            self._replay.restore(env_steps, store.rows(int(tree["rows"]), width, int(tree["rows_checksum"])))
            for store, tree in zip(self._stores, found, strict=True)
        ]


def _code(config: Config) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(code_hash(config)), np.uint8)
