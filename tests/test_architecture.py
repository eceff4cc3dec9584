"""The import rules of the code base: who may know whom, and by which door third parties enter."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in (
        "launch.py",
        "o2o/**/*.py",
        "analysis/**/*.py",
        "benchmarks/**/*.py",
        "hydra_plugins/**/*.py",
    )
    for path in ROOT.glob(pattern)
)
# Whoever composes a configuration meets Hydra; the pieces of a run never do.
COMPOSERS = (
    "hydra_plugins/",
    "o2o/__main__.py",
    "o2o/datasets/__main__.py",
    "benchmarks/workload.py",
    "benchmarks/paper.py",
)

# Package -> the files, or folders ending in "/", that may import it.
DOORS = {
    "wandb": ("o2o/tracker.py", "analysis/dashboard.py"),
    "gymnasium": ("o2o/envs.py",),
    "flax.linen": ("o2o/networks.py",),
    "omegaconf": ("o2o/config.py", *COMPOSERS),
    "hydra": ("o2o/sweep/", *COMPOSERS),
    "h5py": ("o2o/datasets/", "benchmarks/loading.py"),
    "matplotlib": ("analysis/",),
    "submitit": ("o2o/sweep/", "hydra_plugins/"),
}
# Modules that JAX must not reach, and what they may import of o2o.
LIGHT = {
    "o2o.layout",
    "o2o.records",
    "o2o.run_directory",
    "o2o.collapse",
    "o2o.counting",
    "o2o.names",
    "o2o.set_names",
    "o2o.terminal",
}


def imports_of(module: str) -> set[str]:
    """Every module or name that a file imports, written with its dots."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def own_modules(names: set[str]) -> set[str]:
    """The modules of o2o among imported names; a name imported from a module stands for its module."""
    own = {name for name in names if within(name, "o2o")}
    return {name for name in own if is_module(name)} - {"o2o"}


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or path.is_dir()


@pytest.mark.parametrize("package", DOORS)
def test_a_third_party_enters_by_its_door_only(package):
    doors = DOORS[package]
    trespassers = [
        module
        for module in MODULES
        if any(within(name, package) for name in imports_of(module))
        and not any(module == door or (door.endswith("/") and module.startswith(door)) for door in doors)
    ]
    assert trespassers == []


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("o2o/algorithms/")])
def test_algorithms_know_only_equations_networks_and_each_other(module):
    allowed = {"o2o.types", "o2o.losses", "o2o.networks"}
    strangers = {
        name for name in own_modules(imports_of(module)) - allowed if not within(name, "o2o.algorithms")
    }
    assert strangers == set()


def test_training_is_handed_its_algorithm_replay_and_environment():
    handed = ("o2o.algorithms", "o2o.envs", "o2o.datasets", "o2o.experiment")
    kinds = {"o2o.envs", "o2o.envs.Environments"}  # what kind of thing is handed in, not which
    names = imports_of("o2o/training.py") - kinds
    assert [name for name in names if any(within(name, package) for package in handed)] == []


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("analysis/")])
def test_analysis_reads_runs_and_knows_nothing_of_training(module):
    names = imports_of(module)
    assert [name for name in names if within(name, "jax") or within(name, "flax")] == []
    assert own_modules(names) - LIGHT == set()


@pytest.mark.parametrize(
    "module", ["o2o/__init__.py", *(f"{name.replace('.', '/')}.py" for name in sorted(LIGHT))]
)
def test_what_the_analysis_reads_with_is_light(module):
    names = imports_of(module)
    assert own_modules(names) - LIGHT == set()
    roots = {name.partition(".")[0] for name in names}
    assert roots & {"jax", "flax", "optax", "mujoco", "gymnasium", "wandb"} == set()


def test_nothing_pickles():
    picklers = ("pickle", "cloudpickle", "dill", "joblib", "marshal")
    found = [m for m in MODULES if any(within(n, p) for n in imports_of(m) for p in picklers)]
    # It reads others' pickles, by a list of allowed names: tests/test_import.py.
    assert found == ["analysis/corl.py"]


@pytest.mark.parametrize("word", ["utils", "common", "misc", "helpers"])
def test_every_module_is_named_for_what_it_holds(word):
    assert [m for m in MODULES if word in Path(m).with_suffix("").parts] == []
