"""`python -m analysis RUNS --out report/`: figures, tables and one HTML report of all finished runs below RUNS.

`python -m analysis import FILE` reads curves of other programs,
`python -m analysis dashboard` makes a wandb workspace.
Nothing that can be drawn waits for what cannot: what was left out is said, and
is an error only with --strict.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from pathlib import Path

from rich.console import Console

from analysis.dashboard import dashboard
from analysis.data.collect import collect
from analysis.data.frames import curves_of
from analysis.data.measures import measure
from analysis.data.places import unpacked
from analysis.importing.conversion import read_curves, write_curves
from analysis.importing.foreign import REPLAYS, Given
from analysis.tables.coverage import read_diversity
from analysis.tables.every import every_table, finetuning_tables
from analysis.tables.forms import write
from analysis.tables.headline import headline
from o2o.machine import terminal
from o2o.machine.arguments import add_version, number, whole_number
from o2o.machine.counting import counted

COMMANDS = ("import", "dashboard")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; 0 done, 1 something was left out and --strict was given, 2 bad input."""
    words = sys.argv[1:] if arguments is None else arguments
    command, rest = (words[0], words[1:]) if words and words[0] in COMMANDS else ("report", words)
    try:
        return {"report": _report, "import": _import, "dashboard": _dashboard}[command](rest)
    except ValueError as error:
        print(terminal.fitted(str(error), sys.stderr), file=sys.stderr)
        return 2
    except OSError as error:  # of what it was told to read or write
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2


def _report(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(parser)
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        help="the directory of runs, a part of it, or a tar file of one (docs/results/); or several of these",
    )
    parser.add_argument("--out", type=Path, default=Path("report"), help="where all goes (default: report)")
    parser.add_argument(
        "--where",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with these values in their configuration, such as dataset.task=hopper,ant (* is anything)",
    )
    parser.add_argument(
        "--diversity",
        type=Path,
        help="a JSON file of how diverse the datasets are (see analysis/tables/coverage.py)",
    )
    parser.add_argument(
        "--env-steps",
        type=whole_number,
        metavar="N",
        help="only the first N env steps of every run that has got so far, finished or not",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if anything was left out")
    options = parser.parse_args(arguments)
    # What is drawn is the same for everybody: matplotlib reads these when it is imported, and a file where it is.
    os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    with contextlib.chdir(Path(__file__).parent):
        import matplotlib  # noqa: F401
    from analysis.figures import draw_all
    from analysis.report import write_report

    if options.env_steps is not None and options.env_steps < 1:
        raise ValueError(f"--env-steps {options.env_steps}: write a number of env steps above 0")
    places = [unpacked(place, options.out / "runs") for place in options.runs]
    diversity = read_diversity(options.diversity) if options.diversity else None
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)  # a log has room

    def say(text: str) -> None:
        console.print(terminal.fitted(text), markup=False, soft_wrap=True)

    collection = collect(places, _where(options.where), options.env_steps)
    for table in finetuning_tables(collection.cells, console.width):
        console.print(table)
    if not collection.cells:
        chosen = f" with {' '.join(options.where)}" if options.where else ""
        whole = options.env_steps is None
        what = "finished finetuning run" if whole else f"run evaluated at env step {options.env_steps}"
        say(f"no {what} below {' '.join(map(str, options.runs))}{chosen}")
    arms = measure(collection.cells)
    for dataset, sentences in headline(arms).items():
        say("\n".join([f"{dataset}:", *(f"  {sentence}" for sentence in sentences)]))
    for note in collection.notes:
        say(f"note: {note}")
    for run in collection.left_out:
        say(f"left out: {run}")
    if options.env_steps is None and collection.begun:
        say(
            "what has not ended is compared with --env-steps N: the first N env steps of all that has got so far"
        )
    tables = every_table(collection.cells, diversity)
    write(tables, options.out / "tables")
    settings = {run.path: cell.label for cell in collection.cells for run in cell.runs}
    curves = options.out / "curves.csv"
    curves_of(collection.finetunings, settings).to_csv(curves, index=False)
    drawn = draw_all(collection.cells, options.out / "figures")
    for figure in drawn:
        for note in figure.notes:
            say(f"{figure.name}: {note}" if figure.png else f"{figure.name} was not drawn: {note}")
    others = [table for table in tables if table.name not in ("collapse", "per_seed")]  # the page has its own
    page = write_report(collection, arms, options.out / "index.html", drawn, others)
    say(
        f"tables: {options.out / 'tables'}\ncurves: {curves}\nfigures: {options.out / 'figures'}\nreport: {page}"
    )
    for figure in drawn:
        if figure.name == "learning_curves" and figure.png:
            say(f"the learning curves: {figure.png}")
    complete = not (collection.left_out or collection.notes) and all(figure.png for figure in drawn)
    return 1 if options.strict and not (complete and collection.cells) else 0


def _where(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"--where {pair}: write KEY=VALUE, such as dataset.task=hopper")
    return dict(pair.split("=", 1) for pair in pairs)


def _import(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m analysis import", description="Writes curves of other programs as run directories."
    )
    parser.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="a .csv (a table, a wandb run's history, a wandb chart's export) or CORL's .pickle",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("imported"), help="where the runs go (default: imported)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what was understood")
    parser.add_argument(
        "--name",
        metavar="TEMPLATE",
        help="how the names of runs (a chart's columns) or of files are read, such as "
        "'{algorithm} - {dataset} - seed {seed}' or 'run{seed}/history.csv'; {} is what is not wanted, "
        "{dataset=one,two} one of these",
    )
    parser.add_argument("--dataset", help="its name, where neither file nor name says it")
    parser.add_argument("--algorithm", help="its name, where neither file nor name says it")
    parser.add_argument("--seed", type=whole_number, help="the seed, where neither file nor name says it")
    parser.add_argument("--replay", choices=REPLAYS, help="what the replay started with (default: offline)")
    parser.add_argument(
        "--interval", type=whole_number, help="env steps between two evaluations (CORL's pickles)"
    )
    parser.add_argument(
        "--switch", type=whole_number, help="the step at which the online phase starts (default: 0)"
    )
    parser.add_argument(
        "--offline-score", type=number, help="the score at the switch, where the file has none"
    )
    parser.add_argument("--step", dest="step_column", metavar="COLUMN", help="the column of steps")
    parser.add_argument(
        "--score",
        dest="score_column",
        metavar="COLUMN",
        help="the column, or the metric of a chart, of D4RL-normalised scores, 0 to 100",
    )
    options = vars(parser.parse_args(arguments))
    sources, out, dry_run = (options.pop(name) for name in ("sources", "out", "dry_run"))
    given = Given(**options)
    curves, understood = read_curves(sources, given)
    print(understood)
    if dry_run:
        print("nothing was written (--dry-run)")
        return 0
    written = write_curves(curves, out, given)
    print(f"{counted(len(written), 'run')} below {out}; now: python -m analysis {shlex.quote(str(out))}")
    return 0


def _dashboard(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m analysis dashboard",
        description="Makes the collapse workspace on wandb, or writes it to a file.",
    )
    parser.add_argument("--project", default="o2o", help="wandb's project (default: o2o)")
    parser.add_argument("--entity", help="wandb's entity (default: yours)")
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="where the file goes (default: report)"
    )
    options = parser.parse_args(arguments)
    print(dashboard(options.project, options.entity, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(terminal.run(main))
