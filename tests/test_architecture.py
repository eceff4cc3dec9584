"""The rooms of the code base: who may know whom, how full a room may be, and by which door third parties enter."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import Counter
from graphlib import TopologicalSorter
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
# What each room may know besides itself: the rooms in the rows above it.
ROOMS = (
    ("types", "errors", "collapse"),
    ("machine",),
    ("algorithms", "replay", "envs"),
    ("training",),
    ("config",),
    ("datasets",),
    ("runs",),
    ("sweep",),
    ("__main__",),
)
SWEEP_ROOMS = (("ledger",), ("surveying",), ("launching",), ("planning",), ("following",), ("__main__",))
MOST_MODULES = 12

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
    "wandb": ("o2o/runs/recording/tracker.py", "analysis/dashboard.py"),
    "wandb_workspaces": ("analysis/dashboard.py",),
    "gymnasium": ("o2o/envs/",),
    "mujoco": ("o2o/envs/",),
    "numba": ("o2o/envs/kernels.py",),
    "llvmlite": ("o2o/envs/kernels.py",),
    "flax.linen": ("o2o/algorithms/networks.py",),
    "optax": ("o2o/algorithms/", "o2o/datasets/diversity.py"),
    "omegaconf": ("o2o/config/build.py", *COMPOSERS),
    "hydra": ("o2o/sweep/planning/", *COMPOSERS),
    "h5py": ("o2o/datasets/files/", "benchmarks/reading.py"),
    "matplotlib": ("analysis/",),
    "PIL": ("o2o/runs/trained/video.py",),
    "pandas": ("analysis/data/frames.py",),
    "scipy": ("analysis/statistics.py", "o2o/datasets/diversity.py"),
    "submitit": ("o2o/sweep/launching/", "hydra_plugins/"),
    # What others are measured with lives in an environment of its own.
    "d3rlpy": ("benchmarks/peers.py",),
    "sbx": ("benchmarks/peers.py",),
}
# Packages that are imported by another name than they are installed by, or come with another one.
INSTALLED_BY = {
    "hydra": "hydra-core",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "llvmlite": "numba",
    "wandb_workspaces": "wandb-workspaces",
}
# What JAX must not reach, and all of o2o that the analysis and each other may import.
LIGHT = {
    "o2o.collapse",
    "o2o.config.dataset_names",
    "o2o.machine.arguments",
    "o2o.machine.counting",
    "o2o.machine.names",
    "o2o.machine.progress",
    "o2o.machine.terminal",
    "o2o.runs.directory.layout",
    "o2o.runs.directory.protocol",
    "o2o.runs.directory.reader",
    "o2o.runs.directory.science",
    "o2o.runs.directory.writer",
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
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if all(map(is_module, names)) else names | {node.module}
    return found


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def own_modules(names: set[str]) -> set[str]:
    """The files of this project among imported names; a name imported from a module stands for its module."""
    return {name for name in names if file_of(name)}


def file_of(name: str) -> str | None:
    """The file of a module's name; None for a package that holds no code, and for what is no module of ours."""
    path = ROOT / name.replace(".", "/")
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.exists() and file.relative_to(ROOT).as_posix() in MODULES:
            if file.name == "__init__.py" and not imports_of(file.relative_to(ROOT).as_posix()):
                return None
            return file.relative_to(ROOT).as_posix()
    return None


def name_of(module: str) -> str:
    return module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def rank(name: str, package: str, rooms: tuple[tuple[str, ...], ...]) -> tuple[int, str]:
    """In which row of rooms a module stands, and in which room of it."""
    room = name.removeprefix(package).split(".")[1]
    (row,) = (i for i, row in enumerate(rooms) if room in row)
    return row, room


@pytest.mark.parametrize(("package", "rooms"), [("o2o", ROOMS), ("o2o.sweep", SWEEP_ROOMS)])
def test_imports_go_down(package, rooms):
    up = []
    for module in MODULES:
        if not within(name_of(module), package) or name_of(module) == package:
            continue
        row, room = rank(name_of(module), package, rooms)
        for name in own_modules(imports_of(module)):
            if within(name, package) and name != package:
                other, its_room = rank(name, package, rooms)
                if other > row or (other == row and its_room != room):
                    up.append(f"{module} -> {name}")
    assert up == []


def test_imports_make_no_circle():
    graph = {
        module: {file_of(name) for name in own_modules(imports_of(module))} - {module} for module in MODULES
    }
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_no_room_is_crowded():
    rooms = Counter(str(Path(module).parent) for module in MODULES if Path(module).stem[:2] != "__")
    folders = {str(Path(module).parent) for module in MODULES} - {"."}
    rooms.update(str(Path(folder).parent) for folder in folders)
    del rooms["."]
    assert {room: count for room, count in rooms.items() if count > MOST_MODULES} == {}


def test_no_two_modules_share_a_name():
    names = Counter(Path(m).stem for m in MODULES if Path(m).stem[:2] != "__")
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_public_types_share_a_name():
    """Classes, and aliases of types, which are written like them."""
    places: dict[str, set[str]] = {}
    for module in MODULES:
        for node in ast.parse((ROOT / module).read_text(encoding="utf-8")).body:
            names = [node.name] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            for name in names:
                if name[0].isupper() and not name.isupper():
                    places.setdefault(name, set()).add(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_say_what_a_thing_is_or_returns(module):
    """Not "What it is", nor "As in" elsewhere."""
    texts = (
        node.value.value
        for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8")))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )
    assert [text for text in texts if str(text).startswith(("What ", "As in ", "As `", "That "))] == []


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


def test_third_parties_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dashboard"]]
    declared = {re.split(r"[^\w-]", requirement)[0] for requirement in wanted}
    ours = {"o2o", "analysis", "benchmarks", "hydra_plugins"}
    imported = {
        name.partition(".")[0]
        for module in MODULES
        if module != "benchmarks/peers.py"
        for name in imports_of(module)
    }
    third = imported - ours - sys.stdlib_module_names
    assert {INSTALLED_BY.get(name, name) for name in third} - declared == set()


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("o2o/algorithms/")])
def test_algorithms_know_only_each_other(module):
    strangers = {
        name
        for name in own_modules(imports_of(module))
        if name != "o2o.types" and not within(name, "o2o.algorithms")
    }
    assert strangers == set()


def test_training_is_handed_its_algorithm_replay_and_environments():
    for module in (m for m in MODULES if m.startswith("o2o/training/")):
        names = imports_of(module)
        assert [name for name in names if within(name, "o2o.algorithms")] == []
        # What kind of thing is handed in, not which.
        assert {"o2o.envs.tasks.TASKS", "o2o.envs.kernels"} & names == set()


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("analysis/")])
def test_analysis_reads_runs_and_knows_nothing_of_training(module):
    names = imports_of(module)
    assert [name for name in names if within(name, "jax") or within(name, "flax")] == []
    assert {name for name in own_modules(names) if within(name, "o2o")} - LIGHT == set()


@pytest.mark.parametrize(
    "module", ["o2o/__init__.py", *(f"{name.replace('.', '/')}.py" for name in sorted(LIGHT))]
)
def test_what_the_analysis_reads_with_is_light(module):
    names = imports_of(module)
    assert own_modules(names) - LIGHT - {"o2o"} == set()
    roots = {name.partition(".")[0] for name in names}
    assert roots & {"jax", "flax", "optax", "mujoco", "gymnasium", "wandb"} == set()


def test_nothing_pickles():
    picklers = ("pickle", "cloudpickle", "dill", "joblib", "marshal")
    found = [m for m in MODULES if any(within(n, p) for n in imports_of(m) for p in picklers)]
    # It reads others' pickles, by a list of allowed names: tests/analysis/test_import.py.
    assert found == ["analysis/importing/corl.py"]


@pytest.mark.parametrize("word", ["utils", "common", "misc", "helpers"])
def test_every_module_is_named_for_what_it_holds(word):
    assert [m for m in MODULES if word in Path(m).with_suffix("").parts] == []
