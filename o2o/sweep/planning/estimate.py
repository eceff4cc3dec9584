"""The cost of a plan, estimated from earlier runs of its kind, or from a trial on this machine."""

from __future__ import annotations

import platform
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from o2o.machine.counting import counted
from o2o.machine.progress import Agenda, Part, Progress
from o2o.runs.directory.layout import FINETUNE, IDENTITY, PRETRAIN, RESULT, find_runs, read_object
from o2o.runs.identity import science
from o2o.sweep.launching.jobs import PlannedRun, missing_pretrainings, pack

SEEDS_READ = 3
"""Of each cell; more would not tell more."""
SHORTEST_SECONDS = 60
"""Of a run that is read: a shorter one mostly starts and compiles, which a longer one does no oftener."""

WORTH_A_TRIAL = 200_000
"""Steps of unknown cost: some quarter of an hour on two cores, beside which the seconds of a trial are nothing."""
WORTH_SAYING_SECONDS = 600

Kind = tuple[Any, ...]
"""Phase, algorithm, task, layers and batch size: what a step's cost depends on."""


@dataclass(frozen=True)
class Cost:
    """The cost of one finished run."""

    device: str
    host: str
    kind: Kind
    seconds: float
    """A step of it on its device took, evaluations included."""


def device_hours(runs: Sequence[PlannedRun], root: Path) -> str:
    """The device-hours that these runs will take on each device on which their kinds were measured; may be empty."""
    told = []
    for device, measured in _by(measure(root), lambda one: one.device).items():
        kinds = {kind: [one.seconds for one in ones] for kind, ones in _by(measured, _kind_of).items()}
        known = [(run, kinds.get(kind_of(run))) for run in runs]
        seconds = [_steps(science(run.config)) * statistics.median(rates) for run, rates in known if rates]
        if seconds:
            hours, missing = sum(seconds) / 3600, len(runs) - len(seconds)
            rest = f", and {counted(missing, 'run')} of unknown cost" if missing else ""
            from_runs = sum(map(len, {id(rates): rates for _, rates in known if rates}.values()))
            told.append(
                f"{_rounded(hours)} on {_named(device)} (measured on {counted(from_runs, 'run')}){rest}"
            )
    return f"device-hours: {'; '.join(told)}" if told else ""


def seconds_here(root: Path) -> dict[Kind, float]:
    """Seconds a step, evaluations included, of finished runs below `root` that this machine made, by kind."""
    here = [one for one in measure(root) if one.host == platform.node()]
    return {
        kind: statistics.median(one.seconds for one in ones) for kind, ones in _by(here, _kind_of).items()
    }


def ahead(runs: Sequence[PlannedRun], seeds: int, known: dict[Kind, float]) -> str:
    """Says how long these runs take here, where that is worth saying; `known` gains what is measured for it.

    Where many steps of a kind are to be made that is not `known`, the commonest kind of each phase is tried for a few
    seconds, and stands for the others of its phase.

    Args:
        runs: those that are to be run, with the pretrainings that are made for them.
        seeds: how many train side by side.
        known: seconds a step by kind.
    """
    steps = Counter(dict.fromkeys(map(kind_of, runs), 0))
    for run in runs:
        steps[kind_of(run)] += _steps(science(run.config))
    tried = []
    if sum(count for kind, count in steps.items() if kind not in known) >= WORTH_A_TRIAL:
        from o2o.sweep.planning import trial  # loads the simulator

        print("  measuring how fast it goes here, for a few seconds …", flush=True)
        with closing(Progress(["measuring"], 2, "phases", note="compiling", stays=False)) as progress:
            for done, phase in enumerate((PRETRAIN, FINETUNE), start=1):
                unknown = [kind for kind, _ in steps.most_common() if kind not in known and kind[0] == phase]
                if unknown:
                    run = next(run for run in runs if kind_of(run) == unknown[0])
                    beside = min(seeds, sum(other.directory.parent == run.directory.parent for other in runs))
                    known |= dict.fromkeys(unknown, trial.seconds_a_step(run.config, phase, beside))
                    unit = "updates" if phase == PRETRAIN else "env steps"
                    tried.append(f"{unknown[0][1]} {1 / known[unknown[0]]:.3g} {unit}/s on {unknown[0][2]}")
                progress.at(done)
    seconds = sum(count * known.get(kind, 0.0) for kind, count in steps.items())
    if seconds < WORTH_SAYING_SECONDS:
        return ""
    end = datetime.now().astimezone() + timedelta(seconds=seconds)
    source = f"measured now: {', '.join(tried)}" if tried else "measured on earlier runs here"
    return (
        f"  about {_rounded(seconds / 3600)} hours on this machine, until {end:%A %H:%M}\n"
        f"  {source}\n"
        "  Ctrl-C saves and stops, the same command goes on; experiment=demo: minutes"
    )


def agenda(runs: Sequence[PlannedRun], seeds: int, seconds: dict[Kind, float]) -> Agenda:
    """The agenda of runs in jobs of so many seeds, each with the pretraining that it has to make first."""
    made: set[Path] = set()
    jobs = []
    for members in pack(runs, seeds):
        first = [run for run in missing_pretrainings(members) if run.directory not in made]
        made |= {run.directory for run in (*first, *members)}
        phases = [sorted(phase, key=lambda run: run.config.seed) for phase in (first, members) if phase]
        jobs.append([_part(phase) for phase in phases])
    return Agenda(jobs, dict(seconds), "run" if len(jobs) == len(runs) else "job")


def measure(root: Path) -> list[Cost]:
    """The costs of finished runs below `root`, of a few seeds of each cell."""
    found = []
    cells: dict[Path, int] = {}
    for directory in find_runs(root, unreadable=[]):  # what cannot be read tells nothing
        if cells.get(directory.parent, 0) >= SEEDS_READ:
            continue
        try:
            result = read_object(directory / RESULT) or {}
            described = (read_object(directory / IDENTITY) or {}).get("science", {})
            execution = result["execution"]
            rate = execution["seconds"] / execution["members"] / _steps(described)
            one = Cost(execution["device"], execution.get("host", ""), _kind(described), rate)
            if execution["seconds"] < SHORTEST_SECONDS:
                continue
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            continue  # not done, not ours to read, or made by a version that measured otherwise
        cells[directory.parent] = cells.get(directory.parent, 0) + 1
        found.append(one)
    return found


def kind_of(run: PlannedRun) -> Kind:
    """All that the cost of its steps depends on."""
    return _kind(science(run.config))


def _part(runs: Sequence[PlannedRun]) -> Part:
    return Part(str(runs[0].directory), kind_of(runs[0]), len(runs) * _steps(science(runs[0].config)))


def _kind_of(one: Cost) -> Kind:
    return one.kind


def _by(measured: Iterable[Cost], key: Callable[[Cost], Any]) -> dict[Any, list[Cost]]:
    found: dict[Any, list[Cost]] = {}
    for one in sorted(measured, key=lambda one: str(key(one))):
        found.setdefault(key(one), []).append(one)
    return found


def _named(device: str) -> str:
    """A device as `result.json` has it, without saying twice that it is a CPU."""
    platform_name, _, kind = device.partition(": ")
    return platform_name if kind == platform_name else device


def _kind(science: Mapping[str, Any]) -> Kind:
    phase = FINETUNE if "finetune" in science else PRETRAIN
    algorithm = science["algorithm"] if phase == FINETUNE else science["pretrain"]["algorithm"]
    layers = tuple(_flat(science["network"]["hidden_sizes"]))
    online = science.get("finetune", {})
    learning = online.get("updates_per_step", 1), online.get("batch_size") or science["batch_size"]
    return phase, algorithm["name"], science["dataset"]["task"], layers, *learning


def _steps(science: Mapping[str, Any]) -> int:
    return science["finetune"]["env_steps"] if "finetune" in science else science["pretrain"]["updates"]


def _flat(value: Any) -> Iterable[Any]:
    return [item for each in value for item in _flat(each)] if isinstance(value, list | tuple) else [value]


def _rounded(hours: float) -> str:
    return f"{hours:.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 0.1 else "less than 0.1"
