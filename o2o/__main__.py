"""The command line: `o2o [key=value …]`, or `python launch.py …` in a checkout, plans runs and runs them."""

from __future__ import annotations

import difflib
import io
import os
import re
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)
from yaml import YAMLError

from o2o.machine import terminal
from o2o.machine.arguments import VERSION
from o2o.machine.installation import CONF
from o2o.machine.names import pairing, quoting


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(composed: DictConfig) -> None:
    """One job: runs that differ only in their seeds."""
    if "submitit" in HydraConfig.get().launcher._target_:
        _run_by_submitit(lambda: _run(composed))
    else:
        _run(composed)


def _run(composed: DictConfig) -> None:
    from o2o.config import build
    from o2o.errors import ConfigError
    from o2o.runs import job

    if HydraConfig.get().mode is not RunMode.MULTIRUN:
        raise ConfigError(["hydra.mode=RUN: every invocation is a plan; leave hydra.mode alone"])
    first = build.build(build.plain(composed))
    seeds = first.execution.launch.seeds or (first.seed,)
    job.run_members([replace(first, seed=seed) for seed in seeds])


def _run_by_submitit(job: Callable[[], None]) -> None:
    """Ends the process as the job ended. Hydra would keep an exception from submitit, and SLURM call it COMPLETED."""
    try:
        job()
    except SystemExit as stopped:
        if stopped.code == 128 + signal.SIGUSR2:  # a checkpoint is made; to requeue the job is submitit's
            signal.raise_signal(signal.SIGUSR2)
        raise
    except Exception as error:
        if not hasattr(error, "problems"):
            traceback.print_exc()
            sys.exit(1)
        print(error, file=sys.stderr)
        sys.exit(2)


def main() -> int:
    """The exit code: 0 all done, 1 a run failed, 2 bad input, 130 interrupted; 143, 129, 140 come from signals."""
    terminal.forgive()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come here instead of ending the process with 1
    # Hydra would go on without a directory of presets that it was told of and cannot find.
    warnings.filterwarnings("error", r"\s*provider=.*is not available", UserWarning)
    OmegaConf.register_new_resolver("o2o.command", _command, replace=True)  # of the examples in --help
    if "--version" in sys.argv[1:]:  # or Hydra would tell its own
        print(VERSION)
        return 0
    try:
        if any(word.startswith("--experimental-rerun") for word in sys.argv[1:]):
            print(
                "--experimental-rerun reads a pickle, which can run anything: say what to run",
                file=sys.stderr,
            )
            return 2
        if {"--help", "-h"} & set(sys.argv[1:]):
            _help()
        run()
    except (HydraException, OmegaConfBaseException) as error:
        if str(error).startswith("Ambiguous value") and "--multirun" not in sys.argv:
            # Where Hydra cannot compose, it does not see that this is a sweep, and hides what is wrong behind that.
            sys.argv.insert(1, "--multirun")
            return main()
        print(terminal.fitted(_composition_problem(error), sys.stderr), file=sys.stderr)
        return 2
    except (ValueError, RuntimeError, OSError, YAMLError) as error:
        if (problem := _setup_problem(error)) is None:
            raise
        print(terminal.fitted(problem, sys.stderr), file=sys.stderr)
        return 2
    except UserWarning as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    except Exception as error:
        problems = getattr(error, "problems", None)  # a ConfigError, whose module would import JAX for --help
        if problems is None:
            raise
        print(terminal.fitted("\n".join(problems), sys.stderr), file=sys.stderr)
        return 2
    return 0


def _help() -> None:
    """Prints Hydra's help as the terminal has room for it, and ends the process as Hydra does."""
    shown = io.StringIO()
    try:
        with redirect_stdout(shown):
            run()
    finally:
        print(terminal.fitted(shown.getvalue().rstrip()))


def _command() -> str:
    """Returns the command by which this program was started."""
    started = Path(sys.argv[0])
    if started == Path(__file__):
        return "python -m o2o"
    return f"python {started.name}" if started.suffix == ".py" else started.name


def _setup_problem(error: Exception) -> str | None:
    """Returns the message for bad input that Hydra tells by other exceptions than its own; None for other errors."""
    if isinstance(error, OSError) and error.filename:
        return (
            f"{error.filename}: {error.strerror}. Are paths.runs and paths.data (O2O_RUNS, O2O_DATA) right?"
        )
    if isinstance(error, UnicodeDecodeError):
        # Hydra does not say in which file; it calls it so.
        read = [frame.f_locals.get("full_path") for frame, _ in traceback.walk_tb(error.__traceback__)]
        return next((f"{path} is not in UTF-8; save it so" for path in read if path), None)
    if isinstance(error, YAMLError):
        return str(error)
    if re.search("for (environment|JAX flag)", str(error)):  # as JAX says it when it is imported
        return f"{error}: unset it, or give it a value that JAX knows"
    if isinstance(error, RecursionError):
        return f"a preset's defaults name each other without end: {' '.join(sys.argv[1:])}"
    if "Config group override" in str(error):
        words = [word for word in sys.argv[1:] if (CONF / re.split("[@=]", word)[0]).is_dir()]
        return f"{', '.join(words)}: a group takes the name of one of its options; --help lists them."
    return str(error) if "Invalid plugin" in str(error) else None


def _composition_problem(error: Exception) -> str:
    """Returns the message for what Hydra or OmegaConf could not compose: what was typed, why, and the way out."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(error, MissingConfigException) and error.options:
        group, _, word = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={word} is not one of\n{_listed(error.options)}{_near(word, error.options)}"
    if isinstance(error, OverrideParseException):
        told = quoting(error.override) or pairing(error.override)
        return told or f"{error.override}: {str(error).strip()}"
    if isinstance(cause, InterpolationResolutionError | InterpolationKeyError):
        return f"{_typed(cause.full_key)}: {_reference_problem(str(cause))}"
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        return _key_problem(cause.full_key, [str(key) for key in cause.parent_node or ()])
    if group := re.search("config group '(.*)' does not exist", str(error)):
        return _key_problem(group[1], [])
    return str(error).strip() if cause is error else f"{error}\n{cause}".strip()


def _key_problem(place: str, beside: Sequence[str]) -> str:
    """Returns the message for an unknown key or group, with those that there are."""
    above, _, key = place.rpartition(".")
    known, what = [name for name in beside if name not in ("hydra", "experiment")], "key"
    if not known or "/" in place:
        above, what = "", "group"
        known = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
    of = f" of {above}" if above else ""
    return f"{_typed(place)}: {place} is not a {what}; {what}s{of} are\n{_listed(known)}{_near(key, known)}"


def _reference_problem(text: str) -> str:
    """Says why `${…}` in a value stands for nothing."""
    if variable := re.search("Environment variable '(.*)' not found", text):
        name = variable[1]
        return f"the environment has no {name}; export it, or say what holds without it: ${{oc.env:{name},…}}"
    if key := re.search("Interpolation key '(.*)' not found", text):
        return f"there is no key {key[1]} for ${{…}} to stand for; write a whole one, as in ${{dataset.name}}"
    return f"{text.splitlines()[0]}; ${{…}} takes a whole key, as in ${{dataset.name}}, or oc.env:VARIABLE"


def _typed(key: str | None) -> str:
    """The word of the command line that sets a key; the key where none does."""
    words = [(re.split("[@=]", word.lstrip("+~"))[0], word) for word in sys.argv[1:]]
    return next((word for own, word in words if f"{own}.".startswith(f"{key}.")), str(key))


def _listed(options: Iterable[object]) -> str:
    return textwrap.fill(", ".join(map(str, options)), 79, break_on_hyphens=False)


def _near(word: str, options: Iterable[object]) -> str:
    near = difflib.get_close_matches(word, map(str, options), n=1)
    return f"\nDid you mean {near[0]}?" if near else ""


if __name__ == "__main__":
    sys.exit(main())
