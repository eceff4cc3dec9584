"""Kills runs over and over until they are done, and compares what they wrote with what an undisturbed run writes.

The promise (docs/robustness.md): whatever happens to a run, `config.yaml`, `train.jsonl`, `eval.jsonl`,
`episodes.jsonl`, the final parameters, the kept policies and `result.json` without `execution` are, byte for byte,
those of an uninterrupted run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXACT = ("config.yaml", "train.jsonl", "eval.jsonl", "episodes.jsonl", "switch.json", "checkpoints/final.npz")
# Small, with a checkpoint at every report; one of the jobs also has them between reports.
SMALL = ("pretrain.updates=10", "finetune.env_steps=40", "checkpoint.interval_steps=10")
MOST_STARTS = 400


@dataclass(frozen=True)
class Job:
    """What is tormented: overrides of the tiny configuration, and the members' seeds."""

    overrides: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)

    def __str__(self) -> str:
        return " ".join([*self.overrides, f"seeds={len(self.seeds)}"])


# Every algorithm with either replay, checkpoints between reports, and two seeds side by side.
JOBS = [
    *(
        Job((f"algorithm={algorithm}", f"replay_init={replay}"))
        for algorithm in ("td3", "td3_bc", "td3_c")
        for replay in ("empty", "offline")
    ),
    Job(("algorithm=td3_bc", "offline_ratio=r50", "checkpoint.interval_steps=7")),
    Job(("algorithm=td3_c", "replay_init=empty"), (0, 1)),
]
ALONE, PACKED = JOBS[4], JOBS[-1]
SELDOM = 0.01  # deadly is one change to the disk of a hundred, so that kills are spread over the whole run


@dataclass
class Tally:
    """What became of a torment."""

    kills: int = 0
    starts: int = 0
    bytes_compared: int = 0
    bytes_different: int = 0
    points: set[tuple[str, ...]] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    processor_seconds: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.kills + other.kills,
            self.starts + other.starts,
            self.bytes_compared + other.bytes_compared,
            self.bytes_different + other.bytes_different,
            self.points | other.points,
            self.problems + other.problems,
            self.processor_seconds + other.processor_seconds,
        )


class Arena:
    """A directory for runs, a process that forks victims, and what undisturbed runs write."""

    def __init__(self, directory: Path, victims: subprocess.Popen[str], dataset: Path):
        """See `arena`."""
        self.directory, self._victims, self._dataset = directory, victims, dataset
        self.runs, self.log = directory / "runs", directory / "log"
        self._undisturbed: dict[Job, dict[str, bytes]] = {}

    def start(self, job: Job, **order: Any) -> dict[str, Any]:
        """Starts the job once, does to it what the order says, and waits: exit code, deadly point, seconds."""
        from tiny import TINY

        words = [*TINY, f"dataset.path={self._dataset}", f"paths.runs={self.runs}", *SMALL, *job.overrides]
        whole = {
            "overrides": words,
            "seeds": job.seeds,
            "root": str(self.runs),
            "log": str(self.log),
            **order,
        }
        assert self._victims.stdin
        assert self._victims.stdout
        print(json.dumps(whole), file=self._victims.stdin, flush=True)
        return json.loads(self._victims.stdout.readline())

    def clear(self) -> None:
        """Removes all runs, and what they said."""
        shutil.rmtree(self.runs, ignore_errors=True)
        self.log.write_bytes(b"")

    def undisturbed(self, job: Job) -> dict[str, bytes]:
        """What the job writes when it is left alone."""
        if job not in self._undisturbed:
            self.clear()
            ended = self.start(job)
            assert ended["code"] == 0, self.said()
            self._undisturbed[job] = contents(self.runs)
        return self._undisturbed[job]

    def said(self) -> str:
        """The end of what the victims said."""
        return self.log.read_text(errors="replace")[-3000:]

    def torment(self, job: Job, kills: int, share: float = 1.0, seed: int = 0, **order: Any) -> Tally:
        """Kills the job at dangerous points until it is done, and again until there were so many kills.

        At every point that has not killed yet, the victim dies with the probability `share`; if that is 1, it dies at
        each point once and is done then.
        """
        expected = self.undisturbed(job)
        self.clear()
        tally = Tally()
        while tally.starts < MOST_STARTS:
            ended = self.start(
                job,
                share=share if tally.kills < kills else 0.0,
                spared=sorted(tally.points),
                chance_seed=1000 * seed + tally.starts,
                **order,
            )
            tally.starts += 1
            tally.processor_seconds += ended["processor_seconds"]
            if ended["code"] == -signal.SIGKILL:
                tally.kills += 1
                tally.points.add(tuple(ended["point"]))
                continue
            self._judge(tally, ended, expected, str(job))
            if tally.problems or tally.kills >= kills or share == 1.0:
                break
            self.clear()
        return tally

    def harass(
        self, job: Job, kills: int, longest: float, seed: int = 0, number: int = signal.SIGKILL
    ) -> Tally:
        """Kills the job (or sends it another signal) at random times until it is done."""
        expected = self.undisturbed(job)
        self.clear()
        tally, chance = Tally(), random.Random(seed)
        while tally.starts < MOST_STARTS:
            when = [[chance.uniform(0, longest), number]] if tally.kills < kills else []
            ended = self.start(job, signals=when)
            tally.starts += 1
            tally.processor_seconds += ended["processor_seconds"]
            if not when or ended["code"] not in (-number, 128 + number):
                break
            tally.kills += 1
        self._judge(tally, ended, expected, str(job))
        return tally

    def _judge(self, tally: Tally, ended: dict[str, Any], expected: dict[str, bytes], name: str) -> None:
        if ended["code"] != 0:
            tally.problems.append(
                f"{name}: ended with {ended['code']} after {tally.starts} starts\n{self.said()}"
            )
            return
        found = contents(self.runs)
        for file in sorted(expected.keys() | found.keys()):
            one, other = expected.get(file, b""), found.get(file, b"")
            tally.bytes_compared += max(len(one), len(other))
            if one != other:
                differing = sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))
                tally.bytes_different += differing
                tally.problems.append(f"{name}: {file} differs in {differing} of {len(one)} bytes")


def contents(runs: Path) -> dict[str, bytes]:
    """What must be the same byte for byte, of all runs below a directory; a leftover has its name as contents."""
    found = {}
    for config in sorted(runs.rglob("config.yaml")):
        run = config.parent
        for file in EXACT:
            if (run / file).is_file():
                found[str((run / file).relative_to(runs))] = (run / file).read_bytes()
        for policy in run.glob("checkpoints/policy-*.npz"):
            found[str(policy.relative_to(runs))] = policy.read_bytes()
        result = json.loads((run / "result.json").read_text())
        del result["execution"]
        found[str((run / "result.json").relative_to(runs))] = json.dumps(result, indent=1).encode()
    for path in runs.rglob("*"):
        if path.name.endswith((".tmp", ".partial")) or (
            path.name.endswith(".npz") and path.name != "final.npz" and not path.name.startswith("policy-")
        ):
            found[str(path.relative_to(runs))] = b"a leftover"
    return found


@contextmanager
def arena(directory: Path, dataset: Path, cache: Path, **environment: str) -> Iterator[Arena]:
    """An arena in `directory`; compiled code is shared by all victims in `cache`."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "WANDB_API_KEY": SENTINEL,
    }
    with (directory / "victims").open("wb") as errors:
        victims = subprocess.Popen(
            [sys.executable, "-m", "torture.victim"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=directory,
            env={**os.environ, **settings, **environment},
        )
    with victims:  # which closes what it reads and writes, and waits
        yield Arena(directory, victims, dataset)


SENTINEL = "0123456789abcdef0123456789abcdef01234567"
"""Stands for wandb's key, which must not be found in anything that is written."""
