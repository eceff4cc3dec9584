"""Collecting: from directories of runs to the cells of its finetunings, and what to know of the rest.

A run directory needs, to be collected: `config.yaml`, `eval.jsonl` and `result.json` (o2o/runs/directory/reader.py).
The last is not needed of runs that are cut at an env step: so are unfinished ones compared.
Curves of other programs are imported into that form, with `dataset.source: imported`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from analysis.data.cells import Cell, by_dataset, differing, display_name, into_cells, word
from analysis.data.places import Places, paths_of, runs_below
from analysis.data.runs import Finetuning, rows_of, up_to
from o2o.runs.directory import layout, science
from o2o.runs.directory.layout import RunState, read_object, read_state
from o2o.runs.directory.reader import read_config


@dataclass(frozen=True)
class LeftOut:
    """A run that is in no table or figure, and why."""

    path: Path
    state: RunState
    reason: str

    def __str__(self) -> str:
        """One line that names the directory."""
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Collection:
    """All that was found below the directories of runs."""

    cells: tuple[Cell, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    """Everything else a reader must know: damaged rows, settings kept apart, unequal seeds, mixed versions."""

    @property
    def finetunings(self) -> tuple[Finetuning, ...]:
        """The runs of all cells, in the order of the tables."""
        return tuple(run for cell in self.cells for run in cell.runs)

    @property
    def flawless(self) -> bool:
        """Whether nothing was left out and nothing is to be said: what `--strict` asks for."""
        return not self.left_out and not self.notes

    @property
    def begun(self) -> bool:
        """Whether runs were left out that are under way, or were interrupted."""
        return any(self.unfinished[state] for state in (RunState.RUNNING, RunState.INTERRUPTED))

    @property
    def unfinished(self) -> Counter[RunState]:
        """The number of runs that were left out in each state."""
        return Counter(run.state for run in self.left_out)


def collect(
    places: Places, where: Mapping[str, str] | None = None, env_steps: int | None = None
) -> Collection:
    """Reads the finetuning runs below one directory or several, in the order of the tables.

    `where` keeps the runs that `matches` it. Without `env_steps` the finished ones are read; with it the first so many
    env steps of all that were evaluated there, finished or not.
    """
    notes: list[str] = []
    paths = runs_below(paths_of(places), notes)
    pretrainings = _pretrainings([path for path in paths if _is_pretraining(path)], notes)
    finished: dict[tuple[str, int], Finetuning] = {}
    left_out: list[LeftOut] = []
    for path in paths:
        if _is_pretraining(path):
            continue
        found = _read(path, pretrainings, notes, env_steps)
        if isinstance(found, LeftOut):
            left_out += [found] if _asked_for(path, where) else []
            continue
        if not matches(found.config, where):
            continue
        first = finished.setdefault((found.settings_key, found.seed), found)
        if first is not found:
            left_out.append(LeftOut(path, RunState.DONE, f"the same run as {first.path}"))
    cells = into_cells(finished.values())
    notes += [*_cut(finished.values()), *_kept_apart(cells), *_unequal_seeds(cells), *_mixed_versions(cells)]
    return Collection(cells, tuple(left_out), tuple(notes))


def _asked_for(path: Path, where: Mapping[str, str] | None) -> bool:
    try:
        return matches(read_config(path / layout.CONFIG), where)
    except (OSError, ValueError, TypeError, AttributeError):  # what it was cannot be known
        return True


def matches(config: Mapping[str, Any], where: Mapping[str, str] | None) -> bool:
    """Whether a configuration's values at dotted keys read as given: one of several, with * for anything."""
    if not where:
        return True
    flat = science.flatten(config)

    def fits(value: str, given: str) -> bool:
        return value == given or any(fnmatchcase(value, pattern) for pattern in given.split(","))

    return all(fits(word(flat.get(key)), given) for key, given in where.items())


def _is_pretraining(path: Path) -> bool:
    return path.parent.parent.name == layout.PRETRAIN


def _pretrainings(paths: Iterable[Path], notes: list[str]) -> dict[str | None, Path]:
    found = {}
    for path in paths:
        try:
            config = read_config(path / layout.CONFIG)
            _check_readable(path, layout.EVAL)
            found[science.read(path, config)["pretraining"]] = path
        except (ValueError, TypeError, AttributeError) as error:
            notes.append(str(error))
        except KeyError as error:
            notes.append(f"{path}: there is no {error} in its files: another version wrote them")
        except OSError as error:
            notes.append(_cannot_be_read(error))
    return found


def _read(
    path: Path, pretrainings: Mapping[str | None, Path], notes: list[str], env_steps: int | None
) -> Finetuning | LeftOut:
    """One finetuning run, or why it is none; damaged rows are added to `notes`."""
    state = RunState.PLANNED
    try:
        state = read_state(path)
        if state is RunState.PLANNED or (state is not RunState.DONE and env_steps is None):
            return LeftOut(path, state, _why_unfinished(path, state))
        config = read_config(path / layout.CONFIG)
        _check_readable(path, layout.TRAIN, layout.EPISODES)
        identity = science.read(path, config)
        result = read_object(path / layout.RESULT) or {}
        evaluations = rows_of(layout.FINETUNE, path, notes)
        if env_steps is not None:
            evaluations = up_to(evaluations, "env_steps", env_steps)
            result = _result_when_cut(result, config, evaluations)
        run = Finetuning(
            path=path,
            config=config,
            result=result,
            identity=identity,
            evaluations=evaluations,
            pretraining=pretrainings.get(identity["pretraining"]),
            cut_at=env_steps,
        )
        return LeftOut(path, state, problem) if (problem := _problem(run)) else run
    except (ValueError, TypeError, AttributeError) as error:
        return LeftOut(path, state, str(error))
    except OSError as error:
        return LeftOut(path, state, _cannot_be_read(error))
    except KeyError as error:
        return LeftOut(path, state, f"there is no {error} in its files: another version wrote them")


def _result_when_cut(
    result: Mapping[str, Any], config: Mapping[str, Any], evaluations: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Returns as much of a result as is true of the part that is looked at: not how long the whole run took."""
    offline = result.get("offline_score")
    if offline is None and evaluations and config["pretrain"]["updates"] > 0:  # it has not ended
        at_switch = evaluations["score"][evaluations["env_steps"] == 0]
        offline = float(at_switch[0]) if at_switch.size else None
    execution = dict(result.get("execution") or {})
    execution.pop("seconds", None)
    return {"offline_score": offline, "execution": execution}


def _check_readable(path: Path, *files: str) -> None:
    """Checks that files of a run that are read later, where they are wanted, can be.

    Raises:
        OSError: one of them cannot.
    """
    for file in files:
        with contextlib.suppress(FileNotFoundError), (path / file).open("rb"):
            pass


def _cannot_be_read(error: OSError) -> str:
    return f"{error.filename} cannot be read: {error.strerror}"


def _problem(run: Finetuning) -> str | None:
    """Says why a finished run cannot be used; None where it can."""
    _ = run.dataset, run.algorithm, run.replay_init, run.offline_ratio, run.seed, run.offline_score
    _ = run.settings.keys(), run.pretraining_identity
    if not run.evaluations:
        return f"{layout.EVAL} has no online evaluation"
    if np.any(np.diff(run.env_steps) <= 0):
        return f"the env steps in {layout.EVAL} do not increase"
    if not np.all(np.isfinite(run.scores)):
        step = int(run.env_steps[~np.isfinite(run.scores)][0])
        return f"the score at env step {step} is not a number"
    if run.offline_score is None and not run.from_scratch:
        return f"{layout.RESULT} has no offline score"
    last, budget = int(run.env_steps[-1]), run.budget
    if run.cut_at is not None and last != budget:
        whole = int(run.config["finetune"]["env_steps"])
        return f"it was not evaluated at env step {budget}, but last at {last} of {whole}"
    return f"its evaluations end at env step {last} of {budget}" if last != budget else None


def _why_unfinished(path: Path, state: RunState) -> str:
    status = read_object(path / layout.STATUS) or {}
    at = f" at step {status['step']}" if "step" in status else ""
    error = f": {status['error']}" if "error" in status else ""
    return f"{state}{at}{error}"


def _cut(runs: Iterable[Finetuning]) -> list[str]:
    """Says what was cut off, and what of it had not come to its end."""
    cut = [run for run in runs if run.cut_at is not None]
    lengths = [int(run.config["finetune"]["env_steps"]) for run in cut]
    longer = Counter(length for run, length in zip(cut, lengths, strict=True) if length != run.budget)
    unfinished = sum(read_state(run.path) is not RunState.DONE for run in cut)
    if not longer and not unfinished:
        return []
    told = ", ".join(f"{count} of {length}" for length, count in sorted(longer.items()))
    of = f"of longer runs ({told})" if told else "of runs"
    return [f"the first {cut[0].cut_at} env steps {of}, of which {unfinished or 'none'} had not ended"]


def _kept_apart(cells: Iterable[Cell]) -> list[str]:
    looks: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        looks.setdefault((cell.dataset, display_name(cell.first.method), cell.replay), []).append(cell)
    apart: dict[tuple[str, int, str], list[str]] = {}
    for alike in looks.values():
        if len(alike) > 1:
            what = "; ".join(
                f"{key} ({', '.join(word(value) for value in dict.fromkeys(map(word, values)))})"
                for key, values in differing(alike).items()
            )
            name = f"{display_name(alike[0].first.method)} (replay {alike[0].replay})"
            apart.setdefault((alike[0].dataset, len(alike), what), []).append(name)
    return [
        f"{dataset}: {number} settings of {', '.join(names)} are kept apart, they differ in {what}"
        for (dataset, number, what), names in apart.items()
    ]


def _unequal_seeds(cells: Iterable[Cell]) -> list[str]:
    notes = []
    for dataset, alike in by_dataset(cells).items():
        every = sorted({seed for cell in alike for seed in cell.seeds})
        short = [cell for cell in alike if len(set(cell.seeds)) < len(every)]
        if short:
            missing = "; ".join(
                f"{cell.label}, replay {cell.replay}, lacks {', '.join(map(str, sorted(set(every) - set(cell.seeds))))}"
                for cell in short
            )
            notes.append(
                f"{dataset}: not every setting has the seeds {', '.join(map(str, every))}: {missing}"
            )
    return notes


def _mixed_versions(cells: Iterable[Cell]) -> list[str]:
    """One note for every kind of version that is not the same in all runs; of the code, in all of an algorithm's."""
    seen: dict[str, Counter[str]] = {}
    for cell in cells:
        for run in cell.runs:
            versions = (run.result.get("execution") or {}).get("versions") or {}
            code = str(run.identity.get("code_hash", "unknown"))[:8]
            own = "" if run.from_scratch else f" after {display_name(run.pretraining_algorithm)}"
            for name, version in {
                f"the code of {display_name(run.algorithm)}{own}": code,
                **versions,
            }.items():
                seen.setdefault(name, Counter())[str(version)] += 1
    return [
        f"runs of different versions of {name}: "
        + ", ".join(f"{version} ({count})" for version, count in sorted(versions.items()))
        for name, versions in seen.items()
        if len(versions) > 1
    ]
