"""One malformed input, given to one of this project's commands, and what three promises became of it.

Bad input is told on one screen that names the culprit and holds no traceback; the exit code is 2; nothing on disk has
changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import runpy
import stat
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCREEN_LINES, SCREEN_CHARACTERS = 25, 2500


@dataclass(frozen=True)
class Case:
    """One bad input: a command line, and what is laid out before it in the directory it is given in."""

    name: str
    arguments: tuple[str, ...]
    """`{}` stands for the directory."""
    culprit: str
    """What the message must name."""
    prepare: Callable[[Path], object] = lambda directory: None
    command: str = "launch"
    environment: Mapping[str, str] = field(default_factory=dict)
    code: int = 2
    aside: tuple[str, ...] = ()
    """Files that the command is free to write."""


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: object
    output: str
    errors: str


def shortcomings(case: Case, directory: Path) -> list[str]:
    """Gives the input in `directory`; what was promised and not kept, in words."""
    case.prepare(directory)
    before = snapshot(directory)
    outcome = call(
        case.command,
        [word.replace("{}", str(directory)) for word in case.arguments],
        directory,
        case.environment,
    )
    after = snapshot(directory)
    said = outcome.output + outcome.errors
    found = []
    if outcome.code != case.code:
        found.append(f"exit code {outcome.code} instead of {case.code}")
    if "Traceback" in said:
        found.append("a traceback")
    if case.culprit not in said:
        found.append(f"{case.culprit!r} is not named")
    if len(outcome.errors.splitlines()) > SCREEN_LINES or len(outcome.errors) > SCREEN_CHARACTERS:
        found.append(f"{len(outcome.errors.splitlines())} lines, {len(outcome.errors)} characters")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    if changed := sorted(changed - set(case.aside)):
        found.append(f"changed on disk: {', '.join(changed[:5])}")
    return [f"{problem}\n{said[-1500:]}" for problem in found[:1]] + found[1:]


def snapshot(directory: Path) -> dict[str, str]:
    """Everything below a directory: name to mode, and contents or target."""
    found = {}
    for folder, names, files in os.walk(directory):
        for name in (*names, *files):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            content = ""
            if stat.S_ISLNK(mode):
                content = os.readlink(path)
            elif stat.S_ISREG(mode):
                with path.open("rb") as stream:
                    content = hashlib.file_digest(stream, "sha256").hexdigest()
            found[str(path.relative_to(directory))] = f"{mode:o} {content}"
    return found


def call(command: str, arguments: list[str], directory: Path, environment: Mapping[str, str]) -> Outcome:
    """Runs `launch` or a module's command line in this process, as a process of its own would in `directory`.

    Nothing is trained: where `launch` would start a run, that is an error.
    """
    output, errors = io.StringIO(), io.StringIO()
    script = ROOT / "launch.py" if command == "launch" else None
    with (
        _settings(directory, [str(script or command), *arguments], environment),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            if script:
                with _untrained():
                    runpy.run_path(str(script), run_name="__main__")
            code: object = 0 if script else _command_line(command)()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            code = 1
            traceback.print_exc()
    return Outcome(code, output.getvalue(), errors.getvalue())


def _command_line(module: str) -> Callable[[], int]:
    """What `python -m module` calls."""
    package = hasattr(importlib.import_module(module), "__path__")
    return importlib.import_module(f"{module}.__main__" if package else module).main


@contextlib.contextmanager
def _settings(directory: Path, argv: list[str], environment: Mapping[str, str]) -> Iterator[None]:
    own = {"O2O_RUNS": str(directory / "runs"), "O2O_DATA": str(directory / "data"), **environment}
    saved, here, arguments = dict(os.environ), Path.cwd(), sys.argv
    try:
        os.environ.update(own)
        os.chdir(directory)
        sys.argv = argv
        yield
    finally:
        sys.argv = arguments
        os.chdir(here)
        os.environ.clear()
        os.environ.update(saved)


@contextlib.contextmanager
def _untrained() -> Iterator[None]:
    import o2o.runs

    def refuse(*configs: object) -> None:
        raise AssertionError("it was let through to training")

    stand_in = types.ModuleType("o2o.runs.job")
    stand_in.run = stand_in.run_members = refuse  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "o2o.runs.job", stand_in)
        patched.setattr(o2o.runs, "job", stand_in, raising=False)
        yield
