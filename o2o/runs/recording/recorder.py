"""The recorder of a job: the records of its runs side by side, a progress line, and the time that it took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from o2o.config.schema import Config, algorithm_name
from o2o.machine.counting import named_seeds
from o2o.machine.progress import Progress
from o2o.runs.directory import layout
from o2o.runs.directory.layout import PRETRAIN
from o2o.runs.recording import run_results
from o2o.runs.recording.divergence import DivergedError, not_finite
from o2o.runs.recording.run_record import RunRecord, data_name
from o2o.training.evaluation import Evaluation
from o2o.training.reports import Report


class Recorder:
    """The records of a job's runs; a context in which an exception marks them all as failed."""

    def __init__(self, configs: Sequence[Config], remarks: Sequence[str] = ()):
        """Names the run directories; nothing is written before the context is entered.

        Args:
            configs: one a run.
            remarks: what must be known of the results, and stands beside them.
        """
        self._config, self._remarks = configs[0], remarks
        self._records = [RunRecord(config) for config in configs]
        self._seconds = {"training": 0.0, "evaluation": 0.0}
        self._code_changed = False
        self._note = ""

    def __enter__(self) -> Self:
        """Opens an attempt of every run."""
        for record in self._records:
            record.open()
        self._progress = self._progress_line()
        self._last = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Marks the runs as failed or interrupted if an exception ended the phase."""
        self._progress.close()
        for i, record in enumerate(self._records):
            if isinstance(error, DivergedError):
                own = error.members.get(i)
                record.close(error, "others in the job failed" if own is None else None, own)
            else:
                stopped = isinstance(error, KeyboardInterrupt | SystemExit)
                record.close(error, repr(error) if stopped else None)

    def begin(self) -> None:
        """Starts the records from nothing."""
        for record in self._records:
            record.begin()

    def resume(
        self, step: int, offsets: Sequence[dict[str, int]], seconds: dict[str, float], same_code: bool
    ) -> None:
        """Goes on from where the records were when `offsets` were taken, after so many seconds of each kind.

        Raises:
            ValueError: if they are shorter than that.
        """
        for record, own in zip(self._records, offsets, strict=True):
            record.directory.rewind(own)
        self._seconds = dict(seconds)
        if not same_code:
            self._code_changed = True
            self.event("code changed", step=step)
        self.event("resumed", step=self._records[0].learner_step(step))
        self._progress.resume(step)
        for record in self._records:
            record.resume()

    def offsets(self) -> list[dict[str, int]]:
        """Returns the length of every member's records, once they are on disk."""
        return [record.directory.offsets() for record in self._records]

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of training and of evaluation, over all attempts."""
        return dict(self._seconds)

    def clock(self, part: str) -> None:
        """Books the time since the last call: `training` or `evaluation`."""
        now = time.monotonic()
        self._seconds[part] += now - self._last
        self._last = now

    def reached(self, step: int) -> None:
        """Shows a step of this phase to whoever watches; nothing is written."""
        self._progress.at(step)

    def event(self, name: str, **details: Any) -> None:
        """Notes something in the history of every run."""
        for record in self._records:
            record.directory.event(name, **details)

    def diverged(self, report: Report) -> dict[int, str]:
        """Which members' metrics are not finite, and which and where, in words."""
        found = {}
        for i, (record, metrics) in enumerate(zip(self._records, report.metrics, strict=True)):
            if bad := not_finite(metrics):
                place = f"{record.phase} step {report.step} of seed {record.config.seed}"
                found[i] = f"{', '.join(bad)} not finite at {place}"
        return found

    def episodes(self, report: Report) -> None:
        """Writes the training episodes that ended since the last report."""
        for episode in report.episodes:
            row = {
                "env_step": episode.env_step,
                "return": episode.episode_return,
                "length": episode.length,
            }
            self._records[episode.member].directory.append(layout.EPISODES, row)

    def reported(
        self,
        report: Report,
        evaluations: Sequence[Evaluation] = (),
        diagnostics: Sequence[dict[str, float]] = (),
    ) -> None:
        """Writes what there is at a stop: the metrics, and an evaluation of every run if it was time for one."""
        found = diagnostics or [{} for _ in self._records]
        for record, metrics, own in zip(self._records, report.metrics, found, strict=True):
            record.metrics(report.step, metrics | own)
        if evaluations:
            self._write_evaluations(report.step, report.updates, evaluations)
            self._note = "score " + " ".join(f"{record.last_score:.1f}" for record in self._records)
        for record in self._records:
            record.progress(report.step, self._seconds)
        self._progress.at(report.step, self._note)

    def switched(self, evaluations: Sequence[Evaluation], diagnostics: Sequence[dict[str, float]]) -> None:
        """Writes the evaluation and the diagnostics at the switch, before the first env step."""
        self._write_evaluations(0, 0, evaluations)
        for record, found in zip(self._records, diagnostics, strict=True):
            record.metrics(0, found)
        self._progress.resume(0)

    def finish(self) -> None:
        """Writes every run's result, last of all."""
        execution = run_results.execution(self._config, self._seconds, len(self._records), self._code_changed)
        for record in self._records:
            record.finish(execution, self._remarks)

    def _write_evaluations(self, step: int, updates: int, evaluations: Sequence[Evaluation]) -> None:
        for record, evaluation in zip(self._records, evaluations, strict=True):
            record.evaluation(step, updates, evaluation)

    def _progress_line(self) -> Progress:
        config, phase = self._config, self._records[0].phase
        pretraining = phase == PRETRAIN
        total = config.pretrain.updates if pretraining else config.finetune.env_steps
        name = algorithm_name(config.pretrain.algorithm if pretraining else config.algorithm)
        waits = not config.replay_init.preload or config.offline_ratio.value is not None
        collecting = config.replay_init.min_size if waits else 0  # at least so long nothing is learned
        seeds = named_seeds([record.config.seed for record in self._records])
        arm = f"{name}{'' if pretraining else f' {config.replay_init.name}'}"
        labels = [
            f"{phase} {arm} {data_name(config)} {seeds}",
            f"{phase} {arm} {seeds}",
            f"{arm} {seeds}",
            arm,
        ]
        return Progress(
            labels,
            total,
            "updates" if pretraining else "steps",
            note="" if pretraining else "evaluating the start",
            place=str(self._records[0].directory.path),
            members=len(self._records),
            begins=0 if pretraining else max(config.finetune.warmup_steps, collecting),
        )
