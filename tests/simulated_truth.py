"""How often the register of claims is wrong: made-up curves whose truth is known, through the whole of its path.

`python -m tests.simulated_truth` measures it and prints the tables of docs/claims.md.

A world says what the policies truly do; an evaluation adds normal noise to that. Runs are made in memory, measured
against the nulls of their own frozen arms, and judged, as those read from disk are. A world is a pool of pretrainings,
of which every repetition draws its seeds.
"""

from __future__ import annotations

import itertools
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import stats

from analysis.claims.verdicts import Finding, findings
from analysis.data import published
from analysis.data.cells import Cell, into_cells
from analysis.data.measures import Arm, measure
from analysis.data.runs import Finetuning
from o2o import collapse
from tests.synthetic_runs import BUDGET, DATASETS, GRID, run_in_memory

OFFLINE, SCRATCH = 60.0, 40.0
"""The mean offline score, and where training from scratch ends."""
SPREAD = 3.0
"""The standard deviation of the offline score over pretrainings."""
RATIOS = (0.25, 0.75)
SEEDS = (1, 2, 3, 5, 10)
COUNTS = (1, 8)
"""Of seeds, and of datasets."""
NEARLY = 0.01
"""What is nearer to 0 than so many points is on neither side."""
ALGORITHMS = ("td3", "td3_c", "td3_bc")

Shape = Callable[[np.ndarray], np.ndarray]
"""What a policy gains over its offline score, by env step."""


def unchanged(steps: np.ndarray) -> np.ndarray:
    """The policy stays what it was."""
    return np.zeros(len(steps))


def dip(points: float) -> Shape:
    """Down within 2 000 env steps, back at 20 000, and 10 points above in the end."""
    return lambda steps: np.interp(steps, [0, 2_000, 20_000, BUDGET], [0, -points, 0, 10])


def drop(points: float) -> Shape:
    """Down within 2 000 env steps, for good."""
    return lambda steps: np.interp(steps, [0, 2_000, BUDGET], [0, -points, -points])


@dataclass(frozen=True)
class World:
    """What is true: the shape of the arms that fall, which they are, and how many of their seeds do."""

    name: str
    shape: Shape
    noise: float
    """The standard deviation of an evaluation of ten episodes, in points."""
    who: tuple[str, ...] = ALGORITHMS
    share: float = 1.0
    frozen: bool = True
    """Whether there is a frozen arm, from which the null is drawn."""

    @cached_property
    def truths(self) -> dict[str, Callable[[str], float]]:
        """By claim, what would have to be above 0, on one dataset; 0 where neither verdict is right."""
        steps = np.arange(0, BUDGET + 1, 10)
        gain = {
            name: self.share * self.shape(steps) if name in self.who else unchanged(steps)
            for name in ALGORITHMS
        }
        below = {name: np.maximum(0.0, -curve) for name, curve in gain.items()}
        regret = {name: curve[steps <= collapse.HORIZON].mean() for name, curve in below.items()}
        early = {name: float(curve[steps == 10_000][0]) for name, curve in gain.items()}
        final = {name: float(curve[-1]) for name, curve in gain.items()}
        effect = collapse.effect(OFFLINE)
        leads = early["td3_bc"] - early["td3"], final["td3"] - final["td3_bc"]

        def constant(value: float) -> Callable[[str], float]:
            return lambda dataset: value

        def better(name: str) -> Callable[[str], float]:
            best = {
                d: max(
                    r.online.mean
                    for r in published.TABLE_1
                    if (r.dataset, r.algorithm) in ((d, "odt"), (d, "iql"))
                )
                for d in DATASETS
            }
            return lambda dataset: OFFLINE + final[name] - best[dataset]

        zero = constant(0.0)
        return {
            "td3-collapses": constant(regret["td3"] - effect),
            "td3-collapses-when-empty": constant(regret["td3"] - effect),
            "td3-bc-does-not-collapse": constant(effect - regret["td3_bc"]),
            "collapse-is-no-fluctuation": constant(regret["td3"]),  # nothing falls late in any world
            "medium-is-worse": zero,
            "td3-rivals-td3-bc": constant(0.1 * OFFLINE + final["td3"] - 0.9 * final["td3_bc"]),
            "td3-bc-improves-slowly": constant(leads[1]),
            "td3-bc-gains-from-empty": zero,
            "td3-bc-rivals-on-six-of-eight": constant(0.1 * OFFLINE + final["td3_bc"] - 0.9 * final["td3"]),
            "td3-gains-from-empty": zero,
            "walker2d-medium-replay-is-the-exception": zero,
            "ratios-speed-td3-bc-up": zero,
            "ratios-do-not-rescue-td3": constant(regret["td3"] - effect),
            "td3-c-is-steadier": constant(regret["td3"] - regret["td3_c"]),
            "td3-c-is-steadier-when-empty": zero,
            "td3-c-can-collapse": constant(regret["td3_c"] - effect),
            "td3-c-improves-faster": constant(final["td3_c"] - final["td3_bc"]),
            "scratch-is-worse": constant(OFFLINE + final["td3"] - SCRATCH),
            "td3-better-than-odt-and-iql": better("td3"),
            "td3-c-better-than-odt-and-iql": better("td3_c"),
            "the-budget-decides": constant(min(leads)),
        }


@dataclass(frozen=True, eq=False)
class Pool:
    """Ten pretrainings of each of the eight datasets, with all that was finetuned from them, measured."""

    cells: tuple[Cell, ...]
    arms: tuple[Arm, ...]

    @staticmethod
    def of(world: World, random: np.random.Generator) -> Pool:
        """A fresh one."""
        cells = into_cells(
            [r for d in DATASETS for s in range(max(SEEDS)) for r in _pretraining(world, d, s, random)]
        )
        return Pool(cells, measure(cells))

    def judge(self, seeds: slice, datasets: Sequence[str]) -> tuple[Finding, ...]:
        """What the register says of some of its seeds and datasets."""
        arms = [_some(arm, seeds) for arm in self.arms if arm.cell.dataset in datasets]
        tasks = {arm.cell.first.task for arm in arms}
        scratch = [Cell(c.runs[seeds]) for c in self.cells if c.first.from_scratch and c.first.task in tasks]
        found = findings([*(arm.cell for arm in arms), *scratch], arms)
        return tuple(finding for finding in found if finding.evidence == "our runs, D4RL data")


@dataclass(frozen=True)
class Rate:
    """How often a verdict was given."""

    given: int
    of: int

    @property
    def share(self) -> float:
        """Of all repetitions."""
        return self.given / self.of if self.of else float("nan")

    @property
    def least(self) -> float:
        """What the share truly is at least, but for one case in ten thousand (Clopper and Pearson)."""
        return float(stats.beta.ppf(1e-4, self.given, self.of - self.given + 1)) if self.given else 0.0

    def __add__(self, other: Rate) -> Rate:
        return Rate(self.given + other.given, self.of + other.of)


@dataclass(frozen=True)
class Trial:
    """What was said in one world of so many seeds and datasets, on the datasets there were."""

    world: World
    seeds: int
    datasets: int
    said: Counter[tuple[str, str]]
    repetitions: int
    wrong: Counter[tuple[str, str]]
    """Of those, in how many repetitions each verdict was wrong; and in how many it would have been, below."""
    could_be_wrong: Counter[tuple[str, str]]

    def rate(self, claim: str, verdict: str) -> Rate:
        """How often a claim had this verdict."""
        return Rate(self.said[claim, verdict], self.repetitions)

    @property
    def errors(self) -> dict[tuple[str, str], Rate]:
        """How often each verdict was wrong, of the repetitions in which it would be."""
        return {key: Rate(self.wrong[key], count) for key, count in self.could_be_wrong.items()}


def trials(world: World, pools: int, seeds: Sequence[int] = SEEDS) -> list[Trial]:
    """Judges so many pools; within one, repetitions share neither seeds nor datasets, so that all are independent."""
    random = np.random.default_rng([0, zlib.crc32(f"{world.name} {world.noise}".encode())])
    found = {(n, k): Trial(world, n, k, Counter(), 0, Counter(), Counter()) for n in seeds for k in COUNTS}
    for _ in range(pools):
        pool = Pool.of(world, random)
        for (n, k), trial in found.items():
            starts = range(0, max(SEEDS) - n + 1, n)[: 3 if n > 1 else 1]
            groups = [DATASETS[i : i + k] for i in range(0, len(DATASETS) - k + 1, k)]
            for start, datasets in itertools.product(starts if k > 1 else starts[:1], groups):
                trial = found[n, k] = replace(trial, repetitions=trial.repetitions + 1)
                for finding in pool.judge(slice(start, start + n), datasets):
                    _count(trial, finding, datasets)
    return list(found.values())


def _count(trial: Trial, finding: Finding, datasets: Sequence[str]) -> None:
    claim, said = finding.claim.name, finding.here
    truth = min(trial.world.truths[claim](dataset) for dataset in datasets)
    trial.said[claim, said] += 1
    for verdict, wrong in (("holds", truth < NEARLY), ("fails", truth > -NEARLY)):
        trial.could_be_wrong[claim, verdict] += wrong
        trial.wrong[claim, verdict] += wrong and said == verdict


def _some(arm: Arm, seeds: slice) -> Arm:
    return Arm(Cell(arm.cell.runs[seeds]), arm.runs[seeds])


def _pretraining(world: World, dataset: str, seed: int, random: np.random.Generator) -> Iterator[Finetuning]:
    """All that is finetuned from one, which shares the evaluation at the switch; and a run from scratch."""
    level = random.normal(OFFLINE, SPREAD)
    switch = level + world.noise * 10**0.5 * random.standard_normal(100)
    arms = [(a, replay, None) for a in ALGORITHMS for replay in ("offline", "empty")]
    arms += [(a, "offline", ratio) for a in ("td3", "td3_bc") for ratio in RATIOS]
    arms += [("frozen", "empty", None)] if world.frozen else []
    for algorithm, replay, ratio in arms:
        falls = algorithm in world.who and random.random() < world.share
        curve = (
            level + (world.shape(GRID) if falls else 0.0) + world.noise * random.standard_normal(len(GRID))
        )
        curve[0] = switch.mean()
        yield run_in_memory(dataset, algorithm, seed, curve, replay=replay, ratio=ratio, switch=switch)
    if dataset.endswith("medium-v2"):
        curve = np.linspace(0.0, SCRATCH, len(GRID)) + world.noise * random.standard_normal(len(GRID))
        yield run_in_memory(dataset, "td3", seed, curve, replay="empty")


WORLDS = (
    *(
        World(name, shape, noise)
        for name, shape in (
            ("unchanged", unchanged),
            ("dip of 20", dip(20.0)),
            ("dip of 40", dip(40.0)),
            ("drop of 6.1", drop(6.0 / 0.98)),
            ("drop of 8", drop(8.0)),
            ("drop of 20", drop(20.0)),
        )
        for noise in (1.0, 5.0, 20.0)
    ),
    World("dip of 40, TD3 alone", dip(40.0), 5.0, who=("td3",)),
    World("drop of 20, TD3 alone", drop(20.0), 5.0, who=("td3",)),
    World("drop of 10 in half of the seeds", drop(10.0), 1.0, share=0.5),
    World("drop of 20 in half of the seeds", drop(20.0), 1.0, share=0.5),
    World("unchanged, no frozen arm", unchanged, 5.0, frozen=False),
    World("drop of 8, no frozen arm", drop(8.0), 20.0, frozen=False),
)
"""The least that is called a collapse is 6 points here. The regrets of a dip of 20 or 40 are 4 and 8, of a drop 98 % of
its size, and half of that where half of the seeds fall."""


def pooled(found: Sequence[Trial]) -> dict[tuple[str, str, int, int], Rate]:
    """By claim, verdict, seeds and datasets: how often it was wrong, over all worlds in which it would be."""
    rates: dict[tuple[str, str, int, int], Rate] = {}
    for trial in found:
        for (claim, verdict), rate in trial.errors.items():
            key = claim, verdict, trial.seeds, trial.datasets
            rates[key] = rates.get(key, Rate(0, 0)) + rate
    return rates


def report(found: Sequence[Trial]) -> str:
    """The tables of docs/claims.md: holds / fails in per cent by world, and the errors over all worlds."""
    shown = [(n, k) for k in COUNTS for n in (2, 5, 10)]
    sizes = [f"{n} × {k}" for n, k in shown]
    by_world: dict[World, dict[tuple[int, int], Trial]] = {}
    for trial in found:
        by_world.setdefault(trial.world, {})[trial.seeds, trial.datasets] = trial
    lines = []
    for claim in ("td3-collapses", "td3-bc-does-not-collapse"):
        lines += [f"| {claim} | noise | {' | '.join(sizes)} |", "|---|---|" + "---|" * len(sizes)]
        for world, own in by_world.items():
            rates = [
                [own[size].rate(claim, verdict).share for verdict in ("holds", "fails")] for size in shown
            ]
            cells = [f"{100 * holds:.0f} / {100 * fails:.0f}" for holds, fails in rates]
            lines.append(f"| {world.name} | {world.noise:g} | {' | '.join(cells)} |")
        lines.append("")
    lines += ["| seeds × datasets | repetitions | wrongly holds: mean, worst | wrongly fails: mean, worst |"]
    lines += ["|---|---|---|---|"]
    errors = pooled(found)
    for n, k in itertools.product(SEEDS, COUNTS):
        repetitions = sum(own[n, k].repetitions for own in by_world.values())
        cells = [f"{n} × {k}", f"{repetitions}"]
        for verdict in ("holds", "fails"):
            own = {
                claim: r for (claim, v, *size), r in errors.items() if (v, size) == (verdict, [n, k]) and r.of
            }
            total = sum(own.values(), Rate(0, 0))
            worst = max(own, key=lambda claim: own[claim].share)
            name = f" of {own[worst].of} ({worst})" if own[worst].given else ""
            cells.append(f"{total.share:.1%}, {own[worst].share:.1%}{name}".replace("%", " %"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    POOLS = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    FOUND = [trial for world in WORLDS for trial in trials(world, POOLS)]
    print(report(FOUND))
