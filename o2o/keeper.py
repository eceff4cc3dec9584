"""Where a phase left off: its members' checkpoints, when they are due, and which one all members go on from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from o2o.checkpoint import CheckpointError, Checkpoints
from o2o.config import Config
from o2o.interruption import Interruption
from o2o.journal import Journal
from o2o.members import Members
from o2o.records import CHECKPOINTS, REWOUND
from o2o.replay import Online, Replay
from o2o.sweep.identity import code_hash, run_directory
from o2o.training import Loop, Report, Resumed

_COUNT = np.zeros((), np.int64)


def _code() -> np.ndarray:
    return np.frombuffer(bytes.fromhex(code_hash()), np.uint8)


class Keeper:
    """Saves a phase at its safe points, every now and then and when it is asked to stop."""

    def __init__(
        self,
        configs: Sequence[Config],
        members: Members,
        replay: Replay,
        journal: Journal,
        stop: Interruption,
    ):
        """Names the members' checkpoints; nothing is read or written yet."""
        self._configs, self._members, self._replay = configs, members, replay
        self._journal, self._stop = journal, stop
        self._stores = [Checkpoints(run_directory(c) / CHECKPOINTS) for c in configs]
        self._rows_saved = [0] * members.count
        self._last = time.monotonic()

    def find(self, states: Sequence[Any], loops: Sequence[Loop] = ()) -> tuple[list[Any], Resumed] | None:
        """The members' states at the newest step that all have a good checkpoint of, and where the phase stood.

        `states` and `loops` are what each member's should look like. The records are rewound to that step. None where
        there is no such step; the records are then emptied.
        """
        other = {
            "updates": _COUNT,
            "rows": _COUNT,
            "records": dict.fromkeys(REWOUND, _COUNT),
            "seconds": dict.fromkeys(self._journal.seconds, np.zeros(())),
            "code": _code(),
        }
        like: list[dict[str, Any]] = [{"state": state, **other} for state in states]
        for own, loop in zip(like, loops, strict=False):
            own["loop"] = loop
        if self._configs[0].execution.launch.redo:
            self.forget()
        common = set.intersection(*(set(store.steps()) for store in self._stores))
        for step in sorted(common, reverse=True):
            try:
                found = [store.load(step, own) for store, own in zip(self._stores, like, strict=True)]
                online = self._online([tree["rows"] for tree in found]) if loops else []
                self._journal.resume(
                    step,
                    [{file: int(length) for file, length in tree["records"].items()} for tree in found],
                    {part: float(seconds) for part, seconds in found[0]["seconds"].items()},
                    same_code=all(np.array_equal(tree["code"], _code()) for tree in found),
                )
            except (CheckpointError, ValueError) as error:
                self._journal.event("checkpoint refused", step=step, reason=str(error))
                continue
            for store in self._stores:
                store.forget(after=step)  # or a later step's would be taken for this future's
            self._rows_saved = [int(tree["rows"]) for tree in found]
            resumed = Resumed(
                step, int(found[0]["updates"]), online, [tree["loop"] for tree in found if loops]
            )
            return [jax.tree.map(jnp.asarray, tree["state"]) for tree in found], resumed
        self.forget()
        self._journal.begin()
        return None

    def at(self, report: Report) -> None:
        """A safe point: saves if it is time, and obeys a request to stop."""
        interval = self._configs[0].execution.checkpoint.interval_seconds
        if self._stop.requested or time.monotonic() - self._last >= interval:
            self._save(report)
            self._last = time.monotonic()
        self._stop.obey()

    def forget(self) -> None:
        """Drops all checkpoints, of a phase that is done or starts again."""
        for store in self._stores:
            store.forget()

    def _save(self, report: Report) -> None:
        if report.online is not None and not report.loops:
            return  # environments that cannot be saved: an interrupted phase starts again
        states = self._members.values(report.state)
        records = self._journal.offsets()
        for i, store in enumerate(self._stores):
            tree: dict[str, Any] = {"state": states[i], "updates": report.updates, "records": records[i]}
            tree |= {"seconds": self._journal.seconds, "code": _code()}
            if report.online is not None:
                tree["loop"] = report.loops[i]
                rows = self._new_rows(i, self._members.values(report.online)[i])
                store.append_rows(rows, known=self._rows_saved[i])
                self._rows_saved[i] += len(rows)
            store.save(report.step, tree | {"rows": self._rows_saved[i]})

    def _new_rows(self, i: int, online: Online) -> np.ndarray:
        """The rows that were added since the last checkpoint, or as many of them as the ring still holds."""
        size, added = online.rows.shape[0], int(online.added)
        return np.asarray(online.rows[np.arange(self._rows_saved[i], added) % size])

    def _online(self, counts: Sequence[np.ndarray]) -> list[Online]:
        env_steps = self._configs[0].finetune.env_steps
        width = self._replay.init(1).rows.shape[1]
        return [
            self._replay.restore(env_steps, store.rows(int(count), width))
            for store, count in zip(self._stores, counts, strict=True)
        ]
