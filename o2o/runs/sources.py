"""The code that a run's result depends on, by which results of other code are told apart."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

from o2o.config.schema import Config

PACKAGE = Path(__file__).parents[1]
ELSEWHERE = ("sweep", "machine", "__main__.py")
"""Parts of the package that no number comes from; but for `ARITHMETIC`."""
ARITHMETIC = Path("machine", "device.py")
ALGORITHMS = "algorithms"


def code_hash(config: Config) -> str:
    """The SHA-256 of the source files that a run's result depends on.

    Of the algorithms these are its own, and that of its pretraining, with what they import: one that is added
    changes nothing of the others' runs.
    """
    learners = [config.algorithm] if config.finetune.env_steps else []
    learners += [config.pretrain.algorithm] if config.pretrain.updates else []
    return hash_of_sources(frozenset(type(algorithm).__module__.rpartition(".")[2] for algorithm in learners))


@functools.cache
def hash_of_sources(algorithms: frozenset[str]) -> str:
    """The same for modules of algorithms, by their names."""
    used = _with_imports(algorithms)
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE)
        if file.parts[0] == ALGORITHMS and file.stem not in used:
            continue
        if file.parts[0] in ELSEWHERE and file != ARITHMETIC:
            continue
        digest.update(f"{file.as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _with_imports(algorithms: Iterable[str]) -> set[str]:
    """Modules of algorithms, by their names, and those of the same folder that they import."""
    found: set[str] = set()
    ahead = list(algorithms)
    while ahead:
        path = PACKAGE / ALGORITHMS / f"{ahead.pop()}.py"
        if path.stem in found or not path.is_file():
            continue
        found.add(path.stem)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"o2o.{ALGORITHMS}."):
                below = str(node.module).removeprefix(f"o2o.{ALGORITHMS}").lstrip(".")
                ahead += [below] if below else [alias.name for alias in node.names]
    return found
