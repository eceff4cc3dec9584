"""Following what was launched: `python -m o2o.sweep status|why|protocol|evaluate|logs|… [filter …]`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from o2o.errors import ConfigError
from o2o.machine import terminal
from o2o.machine.arguments import add_version, positive_whole_number, seconds, whole_number
from o2o.runs import evaluate
from o2o.sweep.following import status

FILTERS = """\
Filters choose runs: word=value, all of them together. Values are joined by
commas, seeds also by a dash, * stands for anything, != leaves out. Words are
dataset, task, algorithm, replay, ratio, phase, seed, state, class, sweep, and
any key of a configuration. The name of a sweep is a filter too, and so is the
directory of a run or of several.

  algorithm=td3,td3_c seed=0-4 state=failed     dataset=hopper-* replay!=empty
  sweep=table1 class=memory                     runs/hopper-medium-v2/td3

Exit codes: 0 all is well, 1 a run failed (status, why) or a part could not be
done, 2 bad input, 130 interrupted.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except ConfigError as error:
        print(terminal.fitted("\n".join(error.problems), sys.stderr), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m o2o.sweep",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=FILTERS,
    )
    add_version(parser)
    commands = parser.add_subparsers(metavar="command", required=True)

    def command(name: str, function: object, description: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=description,
            description=description,
            epilog=FILTERS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.add_argument("filters", nargs="*", metavar="filter", help="which runs; all of them without one")
        added.add_argument(
            "--runs",
            type=Path,
            default=Path(os.environ.get("O2O_RUNS") or "runs"),
            help="the directory of runs (default: $O2O_RUNS, else runs)",
        )
        added.set_defaults(command=function)
        return added

    shown = command("status", _status, "How far everything is, one row for all seeds of a setting.")
    shown.add_argument("--json", action="store_true", help="for machines, with every run")
    shown.add_argument(
        "--watch", action="store_true", help="refresh in place until nothing can change any more"
    )
    shown.add_argument(
        "--interval", type=seconds, default=status.REFRESH_SECONDS, help="seconds between refreshes"
    )

    command("why", _why, "Why runs failed or stopped, and what to do about it.")

    command(
        "protocol", _protocol, "What is carried over, who acts, how much is learned; in what runs differ."
    )

    scored = command("evaluate", _evaluate, "Score final policies again; or show in a video what a run kept.")
    evaluate.add_options(scored)

    logs = command("logs", _logs, "What the jobs of runs wrote to stdout and stderr.")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what is added")
    logs.add_argument(
        "-n", "--lines", type=whole_number, default=30, help="last lines of each file; 0 for all of them"
    )

    retry = command("retry", _retry, "Run again what failed or stopped, from its frozen configuration.")
    retry.add_argument("--dry-run", action="store_true", help="only say what would be run again")
    retry.add_argument("--anyway", action="store_true", help="also what would end the same way again")
    retry.add_argument("--here", action="store_true", help="in this process, also what SLURM or a pool had")
    retry.add_argument("--seeds-per-job", type=positive_whole_number, help="seeds side by side in a job")
    retry.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another setting of the launcher than at the launch, such as timeout_min=480",
    )

    cancel = command("cancel", _cancel, "Stop what runs or waits, after a checkpoint.")
    cancel.add_argument("--yes", action="store_true", help="do not ask")

    sync = command("sync", _sync, "Upload what was tracked offline to wandb.")
    sync.add_argument("--dry-run", action="store_true", help="only say what would be uploaded")
    sync.add_argument("--timeout", type=seconds, default=600.0, help="seconds for all of it (default: 600)")

    clean = command("clean", _clean, "Say what nothing needs any more; with --yes, remove it.")
    clean.add_argument("--yes", action="store_true", help="remove it")
    return parser


def _status(options: argparse.Namespace) -> int:
    if options.watch:
        return status.watch(options.runs, options.filters, options.interval)
    return status.run_status(options.runs, options.filters, options.json)


def _why(options: argparse.Namespace) -> int:
    from o2o.sweep.following.why import run_why

    return run_why(options.runs, options.filters)


def _protocol(options: argparse.Namespace) -> int:
    from o2o.sweep.following.protocols import run_protocol

    return run_protocol(options.runs, options.filters)


def _evaluate(options: argparse.Namespace) -> int:
    runs, notes = status.look(options.runs, options.filters)
    for note in notes:
        print(note, file=sys.stderr)
    return evaluate.run_evaluate([run.path for run in runs], options)


def _logs(options: argparse.Namespace) -> int:
    from o2o.sweep.following.logs import run_logs

    return run_logs(options.runs, options.filters, options.lines, options.follow)


def _retry(options: argparse.Namespace) -> int:
    from o2o.sweep.following.retry import Wishes, run_retry

    wishes = Wishes(options.anyway, options.here, options.dry_run, options.seeds_per_job, options.set)
    return run_retry(options.runs, options.filters, wishes)


def _cancel(options: argparse.Namespace) -> int:
    from o2o.sweep.following.cancel import run_cancel

    return run_cancel(options.runs, options.filters, options.yes)


def _sync(options: argparse.Namespace) -> int:
    from o2o.sweep.following.sync import run_sync

    return run_sync(options.runs, options.filters, options.dry_run, options.timeout)


def _clean(options: argparse.Namespace) -> int:
    from o2o.sweep.following.clean import run_clean

    return run_clean(options.runs, options.filters, options.yes)


if __name__ == "__main__":
    sys.exit(terminal.run(main))
