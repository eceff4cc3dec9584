"""o2o where it is installed, and not checked out: laid out as in the wheel, and as the wheel itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from sweeping import Sweep
from tiny import TINY

from o2o.runs import sources
from o2o.runs.directory.layout import RunState, read_state

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]


class Installed:
    """An installed o2o, called from a directory that is empty at first."""

    def __init__(self, site: Path, python: list[str], script: Path, cwd: Path, **environment: str) -> None:
        cwd.mkdir()
        self.site, self.cwd, self._python, self._script = site, cwd, python, script
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("O2O_", "PYTHONPATH"))}
        self._environment = inherited | environment

    def o2o(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The command."""
        return self.python(str(self._script), *words, **environment)

    def python(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The interpreter."""
        return subprocess.run(
            [*self._python, *words],
            cwd=self.cwd,
            env=self._environment | environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    def left(self) -> list[str]:
        """What lies in the working directory."""
        return sorted(path.name for path in self.cwd.iterdir())


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    """What the wheel has, without building it: the build backend is not in the lock."""
    place = tmp_path_factory.mktemp("laid-out")
    site, script = place / "site", place / "o2o"
    for name in WHEEL["only-include"]:
        shutil.copytree(
            ROOT / name,
            site / WHEEL["sources"].get(name, name),
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    module, _, function = PROJECT["project"]["scripts"]["o2o"].partition(":")
    script.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    return Installed(site, [sys.executable, "-P"], script, place / "empty", PYTHONPATH=str(site))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built as pip builds it, with the backend from the registry."""
    place = tmp_path_factory.mktemp("wheel")
    tree = (
        place / "tree"
    )  # a copy: nothing of the build is left behind, and nothing is there that git does not know
    names = [*WHEEL["only-include"], "pyproject.toml", "README.md", "LICENSE"]
    for name in names:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, tree / name)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(place),
        str(tree),
    ]
    built = subprocess.run(build, capture_output=True, text=True, timeout=200, check=False)
    assert built.returncode == 0, built.stderr
    return next(place.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory, pytestconfig):
    """The wheel in an environment of its own, with what it needs from this one."""
    place = tmp_path_factory.mktemp("installed")
    home = place / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin/python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    done = subprocess.run([*install, str(wheel)], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    site = next(home.glob("lib/python*/site-packages"))
    # The files in it that lead to the checkout are not read: only those of the environment itself are.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(pytestconfig.cache.mkdir("jax-jobs")),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    return Installed(site, [str(python)], home / "bin/o2o", place / "empty", **environment)


def test_help_says_the_command_that_was_used_and_every_option(laid_out):
    shown = laid_out.o2o("--help")
    assert shown.returncode == 0, shown.stderr
    assert "\no2o algorithm=td3_c 'seed=range(10)'" in shown.stdout
    assert "launch.py" not in shown.stdout
    for group in (path for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "hydra"):
        assert (
            f"{group.name}: {', '.join(sorted(path.stem for path in group.glob('*.yaml')))}" in shown.stdout
        )
    assert laid_out.left() == []


def test_a_plan_is_made_of_the_installed_files_alone(laid_out):
    said = laid_out.o2o("--info", "searchpath").stdout
    assert f"file://{laid_out.site}/o2o/conf " in said
    assert str(ROOT) not in said
    planned = laid_out.o2o("dataset=hopper-medium-v2", "launch.dry_run=true")
    assert planned.returncode == 0, planned.stderr
    assert "runs/hopper-medium-v2/td3/" in planned.stdout
    assert laid_out.left() == []


def test_the_commands_of_data_know_every_set(laid_out):
    listed = laid_out.python("-m", "o2o.datasets", "list")
    assert listed.returncode == 0, listed.stderr
    for path in (ROOT / "conf/dataset").glob("*-*.yaml"):
        assert f"  {path.stem} " in listed.stdout
    assert laid_out.left() == []


def test_the_code_hash_is_the_one_of_the_checkout(laid_out):
    asked = "import o2o.runs.sources as s; print(s.__file__, s.hash_of_sources(frozenset(['td3'])))"
    told = laid_out.python("-c", asked).stdout
    assert told.split() == [
        str(laid_out.site / "o2o/runs/sources.py"),
        sources.hash_of_sources(frozenset(["td3"])),
    ]


def test_the_shell_completes_groups_and_keys(laid_out):
    asked = {"COMP_LINE": "o2o algorithm=td3_", "COMP_POINT": "18", "COMP_CWORD": "1"}
    completed = laid_out.o2o("-sc", "query=bash", **asked)
    assert completed.stdout.split() == ["algorithm=td3_bc", "algorithm=td3_c"]


def test_help_names_the_module_where_it_was_called_as_one(laid_out):
    assert "\npython -m o2o algorithm=td3_c" in laid_out.python("-m", "o2o", "--help").stdout


@pytest.mark.slow
def test_the_wheel_has_what_was_laid_out_and_nothing_else(wheel, laid_out):
    laid = {
        path.relative_to(laid_out.site).as_posix() for path in laid_out.site.rglob("*.*") if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == {name for name in laid if not name.endswith(".pyc")}


@pytest.mark.slow
def test_from_an_empty_directory_a_sweep_is_planned_run_followed_and_analysed(installed):
    Sweep.write_steps(installed.cwd / "my.hdf5", seed=0)
    words = [*TINY, "dataset.path=my.hdf5"]
    assert "to run 2, after 2 pretrainings" in installed.o2o(*words, "seed=0,1", "launch.dry_run=true").stdout
    assert installed.left() == ["my.hdf5"]

    assert (ran := installed.o2o(*words)).returncode == 0, ran.stderr
    pool = ["pretrain.updates=0", "replay_init=empty", "hydra/launcher=local", "launch.name=pool"]
    assert (ran := installed.o2o(*words, *pool)).returncode == 0, ran.stderr
    runs = installed.cwd / "runs"
    found = sorted(runs.glob("*/td3/*/seed-0"))
    assert [(path.parents[2].name, read_state(path)) for path in found] == [
        ("file", RunState.DONE),
        ("hopper", RunState.DONE),
    ]
    # The installed package and its frozen copy are the same code, and the checkout's.
    identities = [json.loads((path / "identity.json").read_text()) for path in found]
    assert [identity["code_hash"] for identity in identities] == [
        sources.hash_of_sources(frozenset(algorithms)) for algorithms in (["td3", "td3_bc"], ["td3"])
    ]
    (copy,) = (runs / ".sweeps/pool/code").iterdir()
    assert sorted(path.relative_to(copy).as_posix() for path in copy.glob("*/*")) == sorted(
        f"{package}/{path.name}"
        for package in ("o2o", "hydra_plugins")
        for path in (installed.site / package).iterdir()
        if path.name != "__pycache__"
    )

    status = installed.python("-m", "o2o.sweep", "status")
    assert status.stdout.startswith("runs: 3 runs in 3 cells: DONE 3\n")
    analysed = installed.python("-m", "analysis", "runs")
    assert analysed.returncode == 0, analysed.stderr
    assert (installed.cwd / "report/index.html").is_file()
    scored = installed.python("-m", "o2o.runs.evaluate", str(found[0]), "--episodes", "1")
    assert scored.returncode == 0, scored.stderr
    assert installed.left() == ["my.hdf5", "report", "runs"]
