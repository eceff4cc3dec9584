"""What a job writes down while it runs: its members' run directories, the tracker, the progress line, the results."""

from __future__ import annotations

import math
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np

from o2o import collapse
from o2o.config.build import container
from o2o.config.schema import Config, algorithm_name
from o2o.envs.scores import normalised_score, reference_returns
from o2o.errors import ConfigError
from o2o.machine import device
from o2o.machine.progress import Progress
from o2o.runs.directory import layout, reader
from o2o.runs.directory.layout import FINETUNE, PRETRAIN
from o2o.runs.directory.writer import RunDirectory
from o2o.runs.divergence import DivergedError, explained, failure_of
from o2o.runs.identity import cell_hash, describe, identity, run_directory, science
from o2o.runs.lock import LostError
from o2o.runs.tracker import Tracker, open_tracker
from o2o.training.evaluation import Evaluation
from o2o.training.loop import Report

LAST_EVALUATIONS = 10
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "mujoco", "gymnasium")


def refuse_other_run(config: Config) -> None:
    """Makes sure that what was begun in a run's directory is this run.

    Raises:
        ConfigError: if it is another one, or its rows were written at another interval; it says what differs.
    """
    directory = run_directory(config)
    try:
        known = layout.read_object(directory / layout.IDENTITY)
        before = reader.read_config(directory / layout.CONFIG) if known else {}
    except (ValueError, OSError) as error:
        raise ConfigError([f"{error}. Remove {directory} to run it from the start."]) from None
    if known is None:
        return
    ours = container(config)
    if known.get("identity") != identity(config):
        differing = _differences(known.get("science"), science(config)) or [
            f"{layout.IDENTITY} names another"
        ]
    else:
        differing = _differences({"records": before.get("records")}, {"records": ours["records"]})
    if differing:
        raise ConfigError([f"{directory} holds another run than the one to go on with:", *differing])


def _differences(there: Any, here: Any, key: str = "") -> list[str]:
    """A line for every key whose values differ."""
    if isinstance(there, dict) and isinstance(here, dict):
        names = sorted({*there, *here})
        nested = [_differences(there.get(n), here.get(n), f"{key}.{n}" if key else n) for n in names]
        return [line for lines in nested for line in lines]
    return [] if there == here else [f"  {key}: {there} there, {here} here"]


class Journal:
    """The records of a job's runs; a context in which an exception marks them all as failed.

    Runs without env steps are pretrainings.
    """

    def __init__(self, configs: Sequence[Config], remarks: Sequence[str] = ()):
        """Names the run directories; nothing is written before the context is entered.

        Args:
            configs: one a run.
            remarks: what must be known of the results, and stands beside them.
        """
        self._configs, self._remarks = configs, list(remarks)
        self._phase = FINETUNE if configs[0].finetune.env_steps else PRETRAIN
        self._directories = [RunDirectory(run_directory(c)) for c in configs]
        self._seconds = {"training": 0.0, "evaluation": 0.0}

    def __enter__(self) -> Self:
        """Opens an attempt of every run."""
        config = self._configs[0]
        for c, directory in zip(self._configs, self._directories, strict=True):
            directory.start(container(c), describe(c))
        self._trackers = [
            self._open_tracker(c, d) for c, d in zip(self._configs, self._directories, strict=True)
        ]
        pretraining = self._phase == PRETRAIN
        total = config.pretrain.updates if pretraining else config.finetune.env_steps
        algorithm = config.pretrain.algorithm if pretraining else config.algorithm
        seeds = ",".join(str(c.seed) for c in self._configs)
        replay = "" if pretraining else f" {config.replay_init.name}"
        label = f"{self._phase} {algorithm_name(algorithm)}{replay} {_data_name(config)} seed {seeds}"
        self._progress = Progress(label, total, "updates" if pretraining else "steps")
        self._evaluations: list[list[dict[str, Any]]] = [[] for _ in self._configs]
        self._note = ""
        self._code_changed = False
        self._last = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Marks the runs as failed or interrupted if an exception ended the phase."""
        self._progress.close()
        for i, (directory, tracker) in enumerate(zip(self._directories, self._trackers, strict=True)):
            others = isinstance(error, DivergedError) and i not in error.members
            interrupted = others or isinstance(error, KeyboardInterrupt | SystemExit)
            try:
                if interrupted:
                    directory.interrupt("others in the job failed" if others else repr(error))
                elif error is not None and not isinstance(error, LostError):  # whose directory is not ours
                    own = error.members[i] if isinstance(error, DivergedError) else explained(error)
                    directory.fail("".join(traceback.format_exception(error)), own, failure_of(error))
            except OSError as second:
                print(f"{directory.path}: its end could not be recorded: {second}", file=sys.stderr)
            tracker.finish(failed=error is not None and not interrupted, interrupted=interrupted)

    def begin(self) -> None:
        """Starts the records from nothing."""
        for directory, tracker in zip(self._directories, self._trackers, strict=True):
            directory.rewind({})
            tracker.retell(directory.path)

    def resume(
        self, step: int, offsets: Sequence[dict[str, int]], seconds: dict[str, float], same_code: bool
    ) -> None:
        """Goes on from where the records were when `offsets` were taken, after so many seconds of each kind.

        Raises:
            ValueError: if they are shorter than that.
        """
        for directory, own in zip(self._directories, offsets, strict=True):
            directory.rewind(own)
        self._seconds = dict(seconds)
        if not same_code:
            self._code_changed = True
            self.event("code changed", step=step)
        self.event("resumed", step=self._learner_step(step))
        self._progress.resume(step)
        for i, directory in enumerate(self._directories):
            columns = reader.read_run(directory.path).eval
            rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
            self._evaluations[i] = [row for row in rows if row["phase"] == self._phase]
            self._trackers[i].retell(directory.path)

    def offsets(self) -> list[dict[str, int]]:
        """How long every member's records are, once they are on disk."""
        return [directory.offsets() for directory in self._directories]

    @property
    def seconds(self) -> dict[str, float]:
        """How long was trained and evaluated, over all attempts."""
        return dict(self._seconds)

    def event(self, name: str, **details: Any) -> None:
        """Notes something in the history of every run."""
        for directory in self._directories:
            directory.event(name, **details)

    def diverged(self, report: Report) -> dict[int, str]:
        """Which members' metrics are not finite, and what and where, in words."""
        found = {}
        for i, (config, metrics) in enumerate(zip(self._configs, report.metrics, strict=True)):
            bad = [name for name, value in metrics.items() if not math.isfinite(value)]
            if bad:
                found[i] = (
                    f"{', '.join(bad)} not finite at {self._phase} step {report.step} of seed {config.seed}"
                )
        return found

    def episodes(self, report: Report) -> None:
        """Writes the training episodes that ended since the last report."""
        for episode in report.episodes:
            row = {
                "env_step": episode.env_step,
                "return": episode.episode_return,
                "length": episode.length,
            }
            self._directories[episode.member].append(layout.EPISODES, row)

    def reported(
        self,
        report: Report,
        evaluations: Sequence[Evaluation] = (),
        diagnostics: Sequence[dict[str, float]] = (),
    ) -> None:
        """Writes what there is at a stop: the metrics, and an evaluation of every run if it was time for one."""
        found = diagnostics or [{} for _ in self._configs]
        for i, metrics in enumerate(report.metrics):
            self._append(i, layout.TRAIN, self._at(report.step) | metrics | found[i])
        if evaluations:
            self._write_evaluations(report.step, report.updates, evaluations)
            scores = [own[-1]["score"] for own in self._evaluations]
            self._note = "score " + " ".join(f"{score:.1f}" for score in scores)
        seconds = {f"{part}_seconds": seconds for part, seconds in self._seconds.items()}
        for directory in self._directories:
            directory.append(layout.TIMING, self._at(report.step) | seconds)
            directory.progress(self._phase, self._learner_step(report.step))
        self._progress.at(report.step, self._note)

    def switched(self, evaluations: Sequence[Evaluation], diagnostics: Sequence[dict[str, float]]) -> None:
        """Writes the evaluation and the diagnostics at the switch, before the first env step."""
        self._write_evaluations(0, 0, evaluations)
        for i, found in enumerate(diagnostics):
            self._append(i, layout.TRAIN, self._at(0) | found)

    def finish(self) -> None:
        """Writes every run's result, last of all."""
        for i, directory in enumerate(self._directories):
            result = self._result(i)
            self._trackers[i].summarise(
                {name: value for name, value in result.items() if name != "execution"}
            )
            directory.finish(result)

    def _result(self, i: int) -> dict[str, Any]:
        config, evaluations = self._configs[i], self._evaluations[i]
        scores = np.array([row["score"] for row in evaluations])
        result: dict[str, Any] = {"identity": identity(config), "execution": self._execution()}
        if self._remarks:
            result["remarks"] = self._remarks
        if self._phase == PRETRAIN:
            return {"offline_score": float(scores[-1])} | result
        online = {
            "online_score": float(scores[-1]),
            "online_score_last_10": float(scores[1:][-LAST_EVALUATIONS:].mean()),
        }
        if config.pretrain.updates == 0:  # nothing was pretrained, so nothing can be lost
            return {"offline_score": None} | online | {"delta": None, "collapse": None} | result
        offline = float(scores[0])
        first = float(np.mean(evaluations[0]["returns"][: config.evaluation.episodes]))
        env_steps = np.array([row["env_steps"] for row in evaluations])
        return (
            {"offline_score": offline, "offline_score_first_episodes": self._score(first)}
            | online
            | {
                "delta": online["online_score"] - offline,
                "collapse": collapse.summarise(env_steps, scores, offline),
            }
            | result
        )

    def _execution(self) -> dict[str, Any]:
        config = self._configs[0]
        steps = config.pretrain.updates if self._phase == PRETRAIN else config.finetune.env_steps
        used = jax.devices()[0]
        return {
            "seconds": sum(self._seconds.values()),
            "training_seconds": self._seconds["training"],
            "evaluation_seconds": self._seconds["evaluation"],
            "steps_per_second": steps / max(self._seconds["training"], 1e-9),
            "members": len(self._configs),
            "code_changed": self._code_changed,
            "rounding": device.rounding_otherwise(),
            "device": f"{used.platform}: {used.device_kind}",
            "host": platform.node(),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        }

    def _write_evaluations(self, step: int, updates: int, evaluations: Sequence[Evaluation]) -> None:
        for i, evaluation in enumerate(evaluations):
            mean = float(evaluation.returns.mean())
            row = self._at(step) | {
                "updates": updates,
                "env_steps": step if self._phase == FINETUNE else 0,
                "return_mean": mean,
                "return_std": float(evaluation.returns.std()),
                "score": self._score(mean),
                "returns": evaluation.returns,
                "length_mean": float(evaluation.lengths.mean()),
                "q_minus_return": evaluation.q_minus_return,
            }
            self._evaluations[i].append(row)
            self._append(i, layout.EVAL, row)

    def _score(self, episode_return: float) -> float:
        dataset = self._configs[0].dataset
        references = reference_returns(dataset.task, dataset.reference_min, dataset.reference_max)
        return float(normalised_score(episode_return, *references))

    def _append(self, i: int, file: str, row: dict[str, Any]) -> None:
        self._directories[i].append(file, row)
        self._trackers[i].log({name: value for name, value in row.items() if name != "returns"})

    def _at(self, step: int) -> dict[str, Any]:
        return {"phase": self._phase, "step": self._learner_step(step)}

    def _learner_step(self, step: int) -> int:
        return step if self._phase == PRETRAIN else self._configs[0].pretrain.updates + step

    def clock(self, part: str) -> None:
        """Books the time since the last call: `training` or `evaluation`."""
        now = time.monotonic()
        self._seconds[part] += now - self._last
        self._last = now

    def _open_tracker(self, config: Config, directory: RunDirectory) -> Tracker:
        algorithm = config.pretrain.algorithm if self._phase == PRETRAIN else config.algorithm
        return open_tracker(
            mode=config.execution.tracker.mode,
            project=config.execution.tracker.project,
            run_id=identity(config)[:16],
            group=f"{_data_name(config)}-{cell_hash(config)[:8]}-{self._phase}",
            tags=[self._phase, _data_name(config), algorithm_name(algorithm)],
            config=container(config),
            directory=directory.path / "wandb",
            job_type=self._phase,
            name=directory.path.relative_to(config.execution.paths.runs).as_posix(),
        )


def _data_name(config: Config) -> str:
    """What a run learns from: the set, or from scratch, where no row of it is used, the task."""
    return config.dataset.shown_name if config.pretrain.updates else config.dataset.task
