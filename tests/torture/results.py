"""Damaged, foreign and hostile run directories of finished runs, given to `o2o.runs.evaluate` and `analysis`."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from torture.files import Executes
from torture.trial import Case

EVALUATE = "o2o.runs.evaluate"
RUN = "runs/made"
CONFIG = f"{RUN}/config.yaml"
FINAL = f"{RUN}/checkpoints/final.npz"
Damage = Callable[[Path], Any]


def finished(directory: Path, dataset: Path) -> None:
    """What `evaluate` needs of a finished run, untrained."""
    import jax
    from composing import composed
    from tiny import TINY

    from o2o.config.build import build, container
    from o2o.replay.buffer import Replay
    from o2o.runs.identity import describe
    from o2o.training import checkpoint
    from o2o.types import NO_FACTS

    config = build(composed(*TINY, f"dataset.path={dataset}", f"paths.runs={directory / 'runs'}"))
    (directory / RUN).mkdir(parents=True)
    (directory / CONFIG).write_text(yaml.safe_dump(container(config)))
    (directory / RUN / "identity.json").write_text(json.dumps(describe(config)))
    (directory / RUN / "result.json").write_text("{}")
    example = Replay(1, 1, 1, 11, 3).example()
    checkpoint.save(directory / FINAL, config.algorithm.init(jax.random.key(0), example, NO_FACTS))


def _text(content: str | bytes) -> Damage:
    def damage(directory: Path) -> None:
        (directory / CONFIG).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def _key(place: str, value: Any) -> Damage:
    def damage(directory: Path) -> None:
        tree = yaml.safe_load((directory / CONFIG).read_text())
        *groups, last = place.split(".")
        node = tree
        for group in groups:
            node = node[group]
        if value is None:
            del node[last]
        else:
            node[last] = value
        (directory / CONFIG).write_text(yaml.safe_dump(tree))

    return damage


def _added(line: str) -> Damage:
    def damage(directory: Path) -> None:
        with (directory / CONFIG).open("a") as stream:
            stream.write(line)

    return damage


def _replaced(file: str, make: Callable[[Path], Any]) -> Damage:
    """The file is removed, and what `make` makes stands in its place."""

    def damage(directory: Path) -> None:
        (directory / file).unlink()
        make(directory / file)

    return damage


def _final(change: Callable[[bytes], bytes]) -> Damage:
    def damage(directory: Path) -> None:
        (directory / FINAL).write_bytes(change((directory / FINAL).read_bytes()))

    return damage


def _flipped(share: float) -> Damage:
    """Three hundred bytes, so far into the file, are others (one alone may say nothing, such as a date)."""

    def change(content: bytes) -> bytes:
        place = int(share * len(content))
        return (
            content[:place]
            + bytes(byte ^ 0xFF for byte in content[place : place + 300])
            + content[place + 300 :]
        )

    return _final(change)


def _cut(share: float) -> Damage:
    return _final(lambda content: content[: int(share * len(content))])


def _arrays(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(directory: Path) -> None:
        with np.load(directory / FINAL) as file:
            arrays = {name: file[name] for name in file.files}
        change(arrays)
        np.savez(directory / FINAL, **arrays)  # type: ignore[arg-type]

    return damage


def _member(content: bytes) -> Damage:
    """The first array's file in the archive holds something else."""

    def damage(directory: Path) -> None:
        with zipfile.ZipFile(directory / FINAL) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        parts[next(iter(parts))] = content
        with zipfile.ZipFile(directory / FINAL, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, part in parts.items():
                archive.writestr(name, part)

    return damage


def npy(kind: str, shape: tuple[int, ...], data: bytes = b"") -> bytes:
    """An array file of that type and shape, whatever it then holds."""
    return _headed(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}", data)


def _headed(header: str, data: bytes = b"") -> bytes:
    padded = header.ljust(118) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode() + data


def bomb() -> bytes:
    """An array file of 64 MiB of zeros, which a compressed archive holds in 64 KiB."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.zeros(2**26, np.uint8))
    return stream.getvalue()


def _first(change: Callable[[np.ndarray], Any]) -> Callable[[dict[str, Any]], Any]:
    def of(arrays: dict[str, Any]) -> None:
        name = next(name for name in arrays if arrays[name].ndim == 2)
        arrays[name] = change(arrays[name])

    return of


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)

CONFIGS: list[tuple[str, Damage, str]] = [
    ("no file", lambda d: (d / CONFIG).unlink(), "config.yaml"),
    ("empty", _text(""), "config.yaml"),
    ("a list", _text("- 1\n"), "config.yaml"),
    ("a word", _text("hello\n"), "config.yaml"),
    ("a number", _text("3\n"), "config.yaml"),
    ("not YAML", _text("seed: [1\n"), "config.yaml"),
    ("tabs", _text("seed:\n\tx: 1\n"), "config.yaml"),
    ("two documents", _text("seed: 1\n---\nseed: 2\n"), "config.yaml"),
    ("bytes", _text(bytes(range(256))), "config.yaml"),
    ("zeros", _text(bytes(1000)), "config.yaml"),
    ("UTF-16", _text("seed: 1\n".encode("utf-16")), "config.yaml"),
    ("a pickle", _text(pickle.dumps(Executes())), "config.yaml"),
    ("nested too deep", _text("a: " + 5000 * "[" + 5000 * "]"), "config.yaml"),
    ("a billion laughs", _text(LAUGHS), "config.yaml"),
    ("an anchor of itself", _text("a: &a [*a]\n"), "config.yaml"),
    ("a key twice", _added("\nseed: 1\nseed: 2\n"), "config.yaml"),
    ("python/object/apply", _added("\nx: !!python/object/apply:os.system ['touch executed']\n"), "config.yaml"),
    ("python/object/new", _added("\nx: !!python/object/new:os.system ['touch executed']\n"), "config.yaml"),
    ("python/name", _added("\nx: !!python/name:os.system\n"), "config.yaml"),
    ("python/module", _added("\nx: !!python/module:antigravity\n"), "config.yaml"),
    ("python/tuple", _added("\nx: !!python/tuple [1, 2]\n"), "config.yaml"),
    ("a target", _key("algorithm._target_", "os.system"), "_target_"),
    ("a target at the top", _key("_target_", "os.system"), "_target_"),
    ("a target for an algorithm", _key("algorithm", {"_target_": "os.system"}), "algorithm"),
    ("a loop", _key("seed", "${seed}"), "seed"),
    ("an unknown key", _key("batch_sise", 3), "batch_sise"),
    ("a missing key", _key("evaluation.episodes", None), "evaluation.episodes"),
    ("a missing group", _key("network", None), "network"),
    ("a wrong type", _key("discount", "much"), "discount=much"),
    ("out of range", _key("batch_size", -1), "batch_size=-1"),
    ("a huge number", _key("seed", 10**400), "seed"),
    ("text for a number", _key("seed", "0"), "seed=0"),
    ("a date", _added("\nseed: 2020-01-01\n"), "config.yaml"),
    ("an unknown algorithm", _key("algorithm.name", "ppo"), "algorithm.name=ppo"),
    ("an unknown task", _key("dataset.task", "hoper"), "dataset.task=hoper"),
    ("a folder for a name", _key("dataset.name", "../../x"), "dataset.name=../../x"),
    ("another network", _key("network.hidden_sizes", [8, 9]), "final.npz"),
    ("another algorithm", _key("algorithm", {"name": "sac", "target_step": 0.1, "target_entropy_per_dim": -1.0,
        "initial_temperature": 1.0, "temperature_learning_rate": 0.1}), "sac"),
    ("a directory", _replaced(CONFIG, lambda p: p.mkdir()), "config.yaml"),
    ("a loop of links", _replaced(CONFIG, lambda p: p.symlink_to(p.name)), "config.yaml"),
]  # fmt: skip

FINALS: list[tuple[str, Damage, str]] = [
    ("missing", lambda d: (d / FINAL).unlink(), "final.npz"),
    ("empty", _final(lambda c: b""), "final.npz"),
    ("text", _final(lambda c: b"not a checkpoint\n"), "final.npz"),
    ("zeros", _final(lambda c: bytes(len(c))), "final.npz"),
    *((f"cut at {share:.0%}", _cut(share), "final.npz") for share in (0.01, 0.3, 0.6, 0.9, 0.999)),
    ("without its last byte", _final(lambda c: c[:-1]), "final.npz"),
    *((f"flipped at {share:.0%}", _flipped(share), "final.npz") for share in (0.005, 0.2, 0.4, 0.6, 0.8, 0.97)),
    ("a pickle", _final(lambda c: pickle.dumps(Executes())), "final.npz"),
    ("pickled objects", _arrays(_first(lambda a: np.array([Executes()], object))), "final.npz"),
    ("an array that is a pickle", _member(pickle.dumps(Executes())), "final.npz"),
    ("an array alone", _final(lambda c: npy("<f4", (1,), bytes(4))), "final.npz"),
    ("a header with code", _member(_headed("__import__('os').system('touch executed')")), "final.npz"),
    ("a header of objects", _member(npy("|O", (1,), pickle.dumps(Executes()))), "final.npz"),
    ("a shape of terabytes", _member(npy("<f4", (10**12,))), "final.npz"),
    ("a negative shape", _member(npy("<f4", (-1,))), "final.npz"),
    ("a zip bomb", _member(bomb()), "final.npz"),
    ("no arrays", _arrays(lambda a: a.clear()), "final.npz"),
    ("an array more", _arrays(lambda a: a.update(more=np.zeros(3))), "more"),
    ("an array less", _arrays(lambda a: a.pop(next(name for name in a if a[name].ndim == 2))), "final.npz"),
    ("another shape", _arrays(_first(lambda a: a.T.copy())), "final.npz"),
    ("another type", _arrays(_first(lambda a: a.astype(np.float64))), "final.npz"),
    ("whole numbers", _arrays(_first(lambda a: a.astype(np.int32))), "final.npz"),
    ("text for weights", _arrays(_first(lambda a: a.astype(str))), "final.npz"),
    ("another version", _arrays(lambda a: a.update(version=np.array(99))), "version"),
    ("a version of words", _arrays(lambda a: a.update(version=np.array("new"))), "version"),
    ("several versions", _arrays(lambda a: a.update(version=np.array([1, 1]))), "version"),
    ("NaN", _arrays(_first(lambda a: np.full_like(a, np.nan))), "final.npz"),
    ("a path out of it", _arrays(lambda a: a.update({"../../../executed": np.zeros(1)})), "executed"),
    ("a directory", _replaced(FINAL, lambda p: p.mkdir()), "final.npz"),
    ("a loop of links", _replaced(FINAL, lambda p: p.symlink_to(p.name)), "final.npz"),
]  # fmt: skip

PLACES: list[tuple[str, tuple[str, ...], Damage, str]] = [
    ("nowhere", ("{}/nowhere",), lambda d: None, "nowhere"),
    ("a file", ("{}/" + CONFIG,), lambda d: None, "config.yaml"),
    ("the directory of runs", ("{}/runs",), lambda d: None, "runs"),
    ("a loop of links", ("{}/loop",), lambda d: (d / "loop").symlink_to("loop"), "loop"),
    ("a name of 4000 letters", ("{}/" + 4000 * "x",), lambda d: None, "x"),
    ("a zero in its name", ("{}/a\0b",), lambda d: None, "a"),
    ("another language", ("{}/läuft/日本",), lambda d: None, "läuft/日本"),
    ("no run", (), lambda d: None, "run"),
    ("no episodes", ("{}/" + RUN, "--episodes", "0"), lambda d: None, "--episodes"),
    ("a fraction of an episode", ("{}/" + RUN, "--episodes", "1.5"), lambda d: None, "--episodes"),
    ("a negative seed", ("{}/" + RUN, "--seed", "-1"), lambda d: None, "--seed"),
    ("no checkpoints", ("{}/" + RUN,), lambda d: shutil.rmtree(d / RUN / "checkpoints"), "final.npz"),
]  # fmt: skip


def cases() -> list[Case]:
    """All of them, to be given in a copy of what `finished` made."""
    run = "{}/" + RUN
    asked = (run, "--episodes", "1")
    sentinel = {"O2O_SENTINEL": "sentinel"}
    return [
        *(
            Case(f"config.yaml: {name}", asked, said, damage, EVALUATE, sentinel)
            for name, damage, said in CONFIGS
        ),
        *(Case(f"final.npz: {name}", asked, said, damage, EVALUATE) for name, damage, said in FINALS),
        *(Case(f"evaluate {name}", words, said, damage, EVALUATE) for name, words, damage, said in PLACES),
    ]
