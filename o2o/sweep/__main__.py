"""Following what was launched: `python -m o2o.sweep status|why|logs|retry|cancel|sync|clean [filter …]`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from o2o.errors import ConfigError
from o2o.sweep import status

FILTERS = """\
Filters choose runs: word=value, all of them together. Values are joined by commas, seeds also by a dash, * stands for
anything, != leaves out. Words are dataset, task, algorithm, replay, ratio, phase, seed, state, class, sweep, and
any key of a configuration; the directory of a run or of several is a filter too.

  algorithm=td3,td3_c seed=0-4 state=failed        dataset=hopper-* replay!=empty
  sweep=table1 class=memory                        runs/hopper-medium-v2/td3

Exit codes: 0 all is well, 1 a run failed (status, why) or a part could not be done, 2 bad input, 130 interrupted.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except ConfigError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `| head` has seen enough
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m o2o.sweep", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=FILTERS
    )
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
        "--interval", type=float, default=status.REFRESH_SECONDS, help="seconds between refreshes"
    )
    return parser


def _status(options: argparse.Namespace) -> int:
    if options.watch:
        return status.watch(options.runs, options.filters, options.interval)
    return status.run_status(options.runs, options.filters, options.json)


if __name__ == "__main__":
    sys.exit(main())
