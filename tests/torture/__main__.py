"""`make torture`: kills, bad input and the cost of checkpoints, counted, and written to `torture.json`.

`--short` is CI's form: twenty kills, and a fifth of the damaged checkpoints.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

from torture import costs, files, interrupted, results, words
from torture.data import random_steps
from torture.harness import ALONE, JOBS, PACKED, SELDOM, Arena, Tally, arena
from torture.trial import shortcomings


def bad_inputs(directory: Path, dataset: Path) -> tuple[int, list[str]]:
    """How many were given, and which of them broke a promise."""
    template = directory / "finished"
    results.finished(template, dataset)
    cases = [*words.cases(), *files.cases(), *results.cases()]
    broken = []
    for case in cases:
        with tempfile.TemporaryDirectory(dir=directory) as place:
            if case.command == results.EVALUATE:
                shutil.copytree(template, place, dirs_exist_ok=True)
            if found := shortcomings(case, Path(place)):
                broken.append(f"{case.name}: {found[0].splitlines()[0]}")
    return len(cases), broken


def kills(ground: Arena, short: bool) -> Tally:
    """One job is killed at every dangerous point in turn, and every job by chance; `short`: two jobs by chance."""
    total = Tally()

    def add(tally: Tally, what: str) -> None:
        nonlocal total
        total += tally
        each = tally.processor_seconds / max(tally.starts, 1)
        print(f"{total.kills:4} kills, {each:.1f} CPU seconds a start: {what}", flush=True)

    if short:
        add(ground.torment(ALONE, 14, SELDOM), str(ALONE))
        add(ground.torment(PACKED, 6, SELDOM), str(PACKED))
        return total
    add(ground.torment(ALONE, 1000, 1.0), f"every point of {ALONE}")
    for seed, job in enumerate(JOBS):
        add(ground.torment(job, 10, SELDOM, seed), str(job))
        add(ground.torment(job, 5, SELDOM, seed, strike="power cut"), f"power cuts, {job}")
        add(ground.harass(job, 5, 8.0, seed), f"at random times, {job}")
    return total


def main() -> int:
    """The exit code: 1 if anything was lost or any promise broken."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("torture.json"))
    options = parser.parse_args()
    out = options.out.absolute()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        dataset = random_steps(directory / "random.hdf5")
        start = time.monotonic()
        cache = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", directory / "cache"))
        with arena(directory / "arena", dataset, cache) as ground:
            tally = kills(ground, options.short)
            damaged, damaged_lost = interrupted.judge(ground, short=options.short)
        given, broken = bad_inputs(directory, dataset)
        report = {
            "kills": tally.kills,
            "bytes_compared": tally.bytes_compared,
            "bytes_different": tally.bytes_different,
            "bad_inputs": given + damaged,
            "bad_inputs_failed": len(broken) + len(damaged_lost),
            "checkpoint_cost_share": costs.largest_share(directory),
            "dangerous_points": len(tally.points),
            "starts": tally.starts,
            "processor_seconds_a_start": tally.processor_seconds / tally.starts,
            "seconds": round(time.monotonic() - start),
            "machine": f"{os.cpu_count()} × {platform.processor() or platform.machine()}",
            "problems": [*tally.problems, *damaged_lost, *broken],
        }
    for problem in report["problems"]:
        print(f"BROKEN {problem}", file=sys.stderr)
    for figure, value in report.items():
        if figure != "problems":
            print(f"{figure:24}{value:>16.4g}" if isinstance(value, float) else f"{figure:24}{value!s:>16}")
    out.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
