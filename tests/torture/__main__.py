"""`make torture`: kills, bad input and the cost of checkpoints, counted, and written to `torture.json`.

`--kills` is how many kills are wanted at least; they are dealt out to the jobs of `torture.harness`, half of them at
each dangerous point in turn, a quarter as power cuts, a quarter at random times. `--short` is CI's form.
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
from torture.harness import JOBS, Arena, Tally, arena
from torture.trial import shortcomings

SHORT_KILLS = 20


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


def kills(ground: Arena, wanted: int, short: bool) -> Tally:
    """Torments every job (`short`: two of them) until at least so many kills were survived."""
    total = Tally()
    jobs = [JOBS[0], JOBS[-1]] if short else JOBS
    each = -(-wanted // len(jobs))
    turn = 0
    while total.kills < wanted:
        for number, job in enumerate(jobs):
            seed = 1000 * turn + number
            total += ground.torment(job, each - 2 * (each // 4), 0.2 if short else 0.5, seed)
            total += ground.torment(job, each // 4, 0.05, seed, strike="power cut")
            total += ground.harass(job, each // 4, 6.0, seed)
            print(
                f"{total.kills:4} kills, {total.seconds / max(total.starts, 1):.1f} s a start: {job}",
                flush=True,
            )
        turn += 1
    return total


def main() -> int:
    """The exit code: 1 if anything was lost or any promise broken."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=240)
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
            tally = kills(ground, SHORT_KILLS if options.short else options.kills, options.short)
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
