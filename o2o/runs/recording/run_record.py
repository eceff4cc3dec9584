"""The records of one run: its directory, and the tracker that mirrors it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from o2o.config.build import container
from o2o.config.schema import Config, algorithm_name
from o2o.runs.directory import layout, reader
from o2o.runs.directory.layout import FINETUNE, PRETRAIN
from o2o.runs.directory.writer import RunDirectory
from o2o.runs.identity import cell_hash, describe, identity, run_directory
from o2o.runs.lock import LostError
from o2o.runs.recording import run_results
from o2o.runs.recording.divergence import explained, failure_of
from o2o.runs.recording.tracker import Tracker, open_tracker
from o2o.training.evaluation import Evaluation


class RunRecord:
    """Writes the records of one run, as a pretraining if it has no env steps."""

    def __init__(self, config: Config) -> None:
        """Names the run directory; nothing is written before `open`."""
        self.config = config
        self.phase = FINETUNE if config.finetune.env_steps else PRETRAIN
        self.directory = RunDirectory(run_directory(config))
        self._tracker = Tracker()
        self._evaluations: list[dict[str, Any]] = []

    @property
    def last_score(self) -> float:
        """The score of the newest evaluation."""
        return self._evaluations[-1]["score"]

    def open(self) -> None:
        """Opens an attempt of the run."""
        self.directory.start(container(self.config), describe(self.config))
        self._tracker = self._open_tracker()

    def begin(self) -> None:
        """Starts the records from nothing."""
        self.directory.rewind({})
        self._tracker.retell(self.directory.path)

    def resume(self) -> None:
        """Goes on from what the directory holds."""
        columns = reader.read_run(self.directory.path).eval
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        self._evaluations = [row for row in rows if row["phase"] == self.phase]
        self._tracker.retell(self.directory.path)

    def metrics(self, step: int, row: Mapping[str, Any]) -> None:
        """Writes a row of metrics and diagnostics."""
        self._append(layout.TRAIN, {**self._at(step), **row})

    def evaluation(self, step: int, updates: int, evaluation: Evaluation) -> None:
        """Writes an evaluation."""
        row = self._at(step) | {
            "updates": updates,
            "env_steps": step if self.phase == FINETUNE else 0,
            **run_results.evaluation_row(self.config.dataset, evaluation),
        }
        self._evaluations.append(row)
        self._append(layout.EVAL, row)

    def progress(self, step: int, seconds: Mapping[str, float]) -> None:
        """Writes how long it took to come so far."""
        clock = {f"{part}_seconds": value for part, value in seconds.items()}
        self.directory.append(layout.TIMING, self._at(step) | clock)
        self.directory.progress(self.phase, self.learner_step(step))

    def finish(self, execution: Mapping[str, Any], remarks: Sequence[str]) -> None:
        """Writes the result, last of all."""
        told = run_results.scores_of(self.config, self._evaluations) | {"identity": identity(self.config)}
        noted = {"remarks": list(remarks)} if remarks else {}
        self._tracker.summarise(told | noted)
        self.directory.finish(told | {"execution": execution} | noted)

    def close(self, error: BaseException | None, interruption: str | None, words: str | None = None) -> None:
        """Ends the attempt and the tracking.

        Args:
            error: what ended the phase; None if it is done.
            interruption: why the run is to be gone on with; None where it is done or failed.
            words: what happened to this run, where the error tells of several.
        """
        try:
            if interruption is not None:
                self.directory.interrupt(interruption)
            elif error is not None and not isinstance(error, LostError):  # whose directory is not ours
                text = "".join(traceback.format_exception(error))
                self.directory.fail(text, words or explained(error), failure_of(error))
        except OSError as second:
            print(f"{self.directory.path}: its end could not be recorded: {second}", file=sys.stderr)
        interrupted = interruption is not None
        self._tracker.finish(failed=error is not None and not interrupted, interrupted=interrupted)

    def learner_step(self, step: int) -> int:
        """The pretraining updates and env steps before a step of this phase."""
        return step if self.phase == PRETRAIN else self.config.pretrain.updates + step

    def _at(self, step: int) -> dict[str, Any]:
        return {"phase": self.phase, "step": self.learner_step(step)}

    def _append(self, file: str, row: dict[str, Any]) -> None:
        self.directory.append(file, row)
        self._tracker.log({name: value for name, value in row.items() if name != "returns"})

    def _open_tracker(self) -> Tracker:
        config, execution = self.config, self.config.execution
        algorithm = config.pretrain.algorithm if self.phase == PRETRAIN else config.algorithm
        data = data_name(config)
        return open_tracker(
            mode=execution.tracker.mode,
            project=execution.tracker.project,
            run_id=identity(config)[:16],
            group=f"{data}-{cell_hash(config)[:8]}-{self.phase}",
            tags=[self.phase, data, algorithm_name(algorithm)],
            config=container(config),
            directory=self.directory.path / "wandb",
            job_type=self.phase,
            name=self.directory.path.relative_to(execution.paths.runs).as_posix(),
        )


def data_name(config: Config) -> str:
    """The name of the set that a run learns from; from scratch, where no row of it is used, the task's."""
    return config.dataset.shown_name if config.pretrain.updates else config.dataset.task
