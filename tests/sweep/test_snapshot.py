from __future__ import annotations

import subprocess

import pytest

from o2o.sweep.launching import prepare, snapshot


def test_a_snapshot_has_uncommitted_and_untracked_files_and_nothing_ignored(tmp_path):
    root = tmp_path / "project"
    (root / "o2o").mkdir(parents=True)
    (root / "o2o" / "a.py").write_text("1")
    (root / ".gitignore").write_text("runs\n")
    (root / "runs").mkdir()
    (root / "runs" / "big").write_text("x")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    subprocess.run(["git", "-C", str(root), "add", "o2o/a.py", ".gitignore"], check=True)
    (root / "o2o" / "a.py").write_text("2")
    (root / "o2o" / "new.py").write_text("3")
    copy = snapshot.take(tmp_path / "code", root)
    assert {path.relative_to(copy).as_posix() for path in copy.rglob("*.py")} == {"o2o/a.py", "o2o/new.py"}
    assert (copy / "o2o" / "a.py").read_text() == "2"
    assert not (copy / "runs").exists()
    assert snapshot.take(tmp_path / "code", root) == copy
    (root / "o2o" / "a.py").write_text("4")
    assert snapshot.take(tmp_path / "code", root) != copy


def test_without_git_the_packages_are_copied(tmp_path):
    (tmp_path / "project" / "o2o").mkdir(parents=True)
    (tmp_path / "project" / "o2o" / "a.py").write_text("1")
    (tmp_path / "project" / "launch.py").write_text("1")
    copy = snapshot.take(tmp_path / "code", tmp_path / "project")
    assert (copy / "o2o" / "a.py").exists()
    assert (copy / "launch.py").exists()


def test_of_an_installed_package_nothing_is_copied_that_lies_around_it(tmp_path):
    root = tmp_path / "site-packages"
    mine = ["o2o/a.py", "o2o/conf/config.yaml", "hydra_plugins/o2o/b.py"]
    for name in [*mine, "hydra_plugins/others/c.py", "jax/d.py", "conf/settings.py"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("1")
    subprocess.run(
        ["git", "init", "-q", str(tmp_path)], check=True
    )  # the user's, which ignores no environment
    copy = snapshot.take(tmp_path / "code", root)
    assert sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*.*")) == sorted(mine)


def test_a_copy_of_the_code_that_could_not_be_finished_is_removed(tmp_path, monkeypatch):
    (tmp_path / "project" / "o2o").mkdir(parents=True)
    (tmp_path / "project" / "o2o" / "a.py").write_text("1")

    def full(source, target):
        raise OSError(28, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr(snapshot.shutil, "copy2", full)
    with pytest.raises(OSError, match="No space left") as raised:
        snapshot.take(tmp_path / "code", tmp_path / "project")
    assert "code" in prepare.unwritten(raised.value, tmp_path)
    assert list((tmp_path / "code").iterdir()) == []
