"""Looks at offline data, and gets or makes it: `python -m o2o.datasets info walker2d-medium-v2`."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from o2o.config import build
from o2o.config.parsing import suggestion
from o2o.datasets import comparison, d4rl, describe, diversity
from o2o.datasets.regenerated import fidelity, recipes
from o2o.errors import ConfigError
from o2o.machine import terminal
from o2o.machine.arguments import add_version, positive_whole_number
from o2o.machine.installation import CONF
from o2o.machine.names import quoting


@dataclass(frozen=True)
class Command:
    """A subcommand: a function in the module that knows the thing, and what it takes on the command line.

    The function is called with the list of chosen sets (`Dataset`), `Paths`, and its options by name. It prints what it
    found and raises `ConfigError` for bad input. The first line of its docstring is its help.
    """

    run: Callable[..., None]
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Option to its arguments for `ArgumentParser.add_argument`, as {"--sample": {"type": int, "default": 1000}}."""
    default_names: str = ""
    """A pattern of the names in conf/dataset that are chosen where none is given; without one, a name must be."""


COMMANDS = {
    "list": Command(describe.show_list, default_names="regen-*"),
    "info": Command(describe.show_info),
    "fetch": Command(d4rl.fetch),
    "generate": Command(recipes.generate_sets),
    "check": Command(
        fidelity.check_sets,
        {
            "--rows": {"type": positive_whole_number, "default": 2000, "help": "how many to re-simulate"},
            "--episodes": {"type": positive_whole_number, "default": 100, "help": "of the behaviour policy"},
        },
    ),
    "diversity": Command(
        diversity.show_diversity,
        {
            "--samples": {
                "type": positive_whole_number,
                "default": 10_000,
                "help": "rows of each set, at most",
            },
            "--json": {
                "type": Path,
                "dest": "json_file",
                "help": "a file for python -m analysis --diversity",
            },
        },
    ),
    "compare": Command(
        comparison.compare_sets,
        {"--write": {"type": Path, "help": "a Markdown file, whose table is replaced"}},
        default_names="regen-*",
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, 2 for bad input, or 130 if interrupted."""
    options = vars(_parser().parse_args(arguments))
    command, words = COMMANDS[options.pop("command")], options.pop("words")
    names = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    try:
        names = names or _set_names(command.default_names)
        if not names:
            known = ", ".join(_set_names("*-*"))
            raise ConfigError([f"name a set, such as hopper-medium-v2; known are: {known}."])
        unknown = [name for name in names if name not in _set_names("*")]
        if unknown:
            raise ConfigError(f"{name} is no set{_near(name)}." for name in unknown)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            chosen = [
                build.build(build.plain(compose("config", [f"dataset={name}", *overrides]))) for name in names
            ]
        command.run([one.dataset for one in chosen], chosen[0].execution.paths, **options)
    except (HydraException, OmegaConfBaseException) as error:
        unread = error.override if isinstance(error, OverrideParseException) else ""
        print(quoting(unread) or error, file=sys.stderr)
        return 2
    except ConfigError as error:
        print(terminal.fitted("\n".join(error.problems), sys.stderr), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _set_names(pattern: str) -> list[str]:
    return sorted(path.stem for path in (CONF / "dataset").glob(f"{pattern}.yaml")) if pattern else []


def _near(name: str) -> str:
    known = _set_names("*")
    return suggestion(name, known) or f"; known are: {', '.join(known)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m o2o.datasets", description=__doc__)
    add_version(parser)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        about = (inspect.getdoc(command.run) or "").partition("\n")[0]
        subparser = subparsers.add_parser(name, help=about, description=about)
        subparser.add_argument(
            "words",
            nargs="*",
            metavar="name|key=value",
            help="names in conf/dataset, and overrides such as dataset.rows=100000 or paths.data=DIR",
        )
        for option, settings in command.options.items():
            subparser.add_argument(option, **settings)
    return parser


if __name__ == "__main__":
    sys.exit(terminal.run(main))
