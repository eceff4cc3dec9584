"""Dying at a chosen place: every change that a process makes below a directory is seen, and may be its last.

Python's doors to the disk are replaced, outside the product's code: opening for writing, writing, fsync, rename, link,
unlink, truncate and mkdir. A *point* is such a change of a kind of file, before it or, for writes, after half of the
bytes; what comes after a change is the point before the next, but for renames and their like, which have a point of
their own. An evaluation, a block of steps and an environment step, in the middle of a block, are points too.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

_FFI_HANDLER = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
_EXECUTE, _METADATA = 3, 1  # a stage and a kind of extension in XLA_FFI_CallFrame


def _executes(frame: int) -> bool:
    """Whether XLA calls a function of the environments to step them, not to ask what it is."""
    extension = ctypes.c_int64.from_address(frame + 8).value
    stage = ctypes.c_int32.from_address(frame + 32).value
    asked = extension and ctypes.c_int32.from_address(extension + 8).value == _METADATA
    return stage == _EXECUTE and not asked


class Point(NamedTuple):
    """One dangerous point: what is about to happen, or has half happened, or just happened, to which kind of file."""

    operation: str
    file: str
    moment: str


class Watch:
    """Sees every change below `root` and strikes where `fatal` says so."""

    def __init__(self, root: Path, fatal: Callable[[Point], bool], strike: Callable[[Watch, Point], object]):
        """Nothing is replaced before `install`; `strike` kills the process, or does what else is ordered."""
        self.fatal, self.strike = fatal, strike
        self._root = os.path.realpath(root)
        self._forced: dict[str, int] = {}
        self._phase = ""
        self._open, self._truncate, self._fsync = io.open, os.truncate, os.fsync

    def install(self) -> None:
        """Replaces the doors, for the rest of this process's life."""
        import builtins

        io.open = builtins.open = self._opening  # type: ignore[assignment]
        os.fsync = self._forcing  # type: ignore[assignment]
        for name, moments in {
            "replace": ("before", "after"), "rename": ("before", "after"), "link": ("before", "after"),
            "unlink": ("before", "after"), "remove": ("before", "after"), "truncate": ("before", "after"),
            "mkdir": ("before",), "rmdir": ("before",), "open": ("before",),
        }.items():  # fmt: skip
            setattr(os, name, self._watched(name, getattr(os, name), moments))

    def evaluations(self) -> None:
        """Makes evaluations, blocks of steps and environment steps points."""
        from o2o.envs import kernels
        from o2o.envs.mujoco_tasks import MujocoEnvironments
        from o2o.training.evaluation import Evaluator

        evaluate, handle, make_on_cpu = (
            Evaluator.evaluate,
            MujocoEnvironments.handle.fget,
            kernels.make_on_cpu,
        )
        assert handle
        evaluating = 0

        def evaluated(*arguments: Any) -> Any:
            nonlocal evaluating
            self.at("evaluate", self._phase, "before")
            evaluating += 1
            found = evaluate(*arguments)
            evaluating -= 1
            self.at("evaluate", self._phase, "after")
            return found

        def stepping(step: Callable[..., Any]) -> Callable[..., Any]:
            def stepped(*arguments: Any) -> Any:
                self.at("evaluate" if evaluating else "step", self._phase, "half")
                return step(*arguments)

            return stepped

        def handed(environments: Any) -> Any:
            self.at("block of an evaluation" if evaluating else "block", self._phase, "before")
            return handle(environments)

        def make() -> Any:
            made = make_on_cpu()  # which must stay where the program finds it
            step = stepping(_FFI_HANDLER(made.address))
            between = _FFI_HANDLER(lambda frame: (step if _executes(frame) else made.ctypes)(frame))
            return SimpleNamespace(ctypes=between, made=made)

        # What XLA calls in the middle of a compiled program is on a thread of its own there; Python calls the rest.
        kernels.make_on_cpu = make
        Evaluator.evaluate, MujocoEnvironments.handle = evaluated, property(handed)  # type: ignore[method-assign]
        for name in ("advance", "play"):
            setattr(MujocoEnvironments, name, stepping(getattr(MujocoEnvironments, name)))

    def at(self, operation: str, file: str, moment: str) -> None:
        """Strikes here, if this point is fatal."""
        point = Point(operation, file, moment)
        if self.fatal(point):
            self.strike(self, point)

    def cut_power(self) -> None:
        """Loses what was written but not forced to the disk, as when a machine goes down."""
        for path, length in self._forced.items():
            with contextlib.suppress(OSError):
                if os.stat(path).st_size > length:
                    self._truncate(path, length)

    def kind(self, path: str) -> str | None:
        """The kind of file: its place in a pretraining or finetuning run without numbers; None outside the root."""
        if not path.startswith(self._root + os.sep) or f"{os.sep}.cache{os.sep}" in path:
            return None
        place = path[len(self._root) + 1 :]
        self._phase = "pretrain" if "/pretrain/" in place else "finetune"
        found = re.search(r"(seed-[0-9]+)/(.+)$", place)
        return f"{self._phase}/{found[1]}/{re.sub('[0-9]+', 'N', found[2])}" if found else "folder"

    def _below(self, file: Any) -> tuple[str, str] | None:
        """The path and the kind of what is opened or changed, if it is below the root."""
        if isinstance(file, int):
            try:
                path = os.readlink(f"/proc/self/fd/{file}")
            except OSError:
                return None
        else:
            path = os.path.join(
                os.path.realpath(os.path.dirname(os.fspath(file)) or "."), os.path.basename(file)
            )
        kind = self.kind(path)
        return None if kind is None else (path, kind)

    def _opening(
        self, file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
        newline: Any = None, closefd: bool = True, opener: Any = None,
    ) -> Any:  # fmt: skip
        found = self._below(file) if set(mode) & set("wax+") else None
        if found is None:
            return self._open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        path, kind = found
        if not isinstance(file, int):
            self.at("open", kind, "before")
        if path not in self._forced:
            self._forced[path] = os.stat(path).st_size if os.path.exists(path) else 0
        raw = _Raw(self, path, kind, file, re.sub("[bt]", "", mode), closefd, opener)
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    def _forcing(self, descriptor: int) -> None:
        found = self._below(descriptor)
        if found:
            self.at("fsync", found[1], "before")
            self._forced[found[0]] = os.fstat(descriptor).st_size
        self._fsync(descriptor)

    def _watched(
        self, name: str, original: Callable[..., Any], moments: tuple[str, ...]
    ) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            last = arguments[1] if name in ("replace", "rename", "link") else arguments[0]
            found = self._below(last)
            if name == "open" and not (arguments[1] if len(arguments) > 1 else 0) & (os.O_WRONLY | os.O_RDWR):
                found = None
            if found:
                self.at(name, found[1], "before")
            result = original(*arguments, **named)
            if found:
                self._follow(name, arguments, found[0])
                if "after" in moments:
                    self.at(name, found[1], "after")
            return result

        return call

    def _follow(self, name: str, arguments: tuple[Any, ...], path: str) -> None:
        """What is forced to the disk moves with a file's name."""
        if name in ("replace", "rename"):
            source = self._below(arguments[0])
            self._forced[path] = self._forced.pop(source[0] if source else "", os.stat(path).st_size)
        elif name in ("unlink", "remove"):
            self._forced.pop(path, None)
        elif name == "truncate" and path in self._forced:
            self._forced[path] = min(self._forced[path], os.stat(path).st_size)


class _Raw(io.FileIO):
    """A file whose writes are points."""

    def __init__(self, watch: Watch, path: str, kind: str, *how: Any):
        super().__init__(*how)
        self._watch, self._path, self._kind = watch, path, kind

    def write(self, data: Any) -> int:
        data, written = bytes(data), 0
        if len(data) > 1 and self._watch.fatal(halfway := Point("write", self._kind, "half")):
            written = super().write(data[: len(data) // 2])
            self._watch.strike(self._watch, halfway)
        written += super().write(data[written:])
        self._watch.at("write", self._kind, "after")
        return written

    def truncate(self, size: int | None = None) -> int:
        self._watch.at("truncate", self._kind, "before")
        size = super().truncate(size)
        self._watch._forced[self._path] = min(self._watch._forced.get(self._path, 0), size)
        return size
