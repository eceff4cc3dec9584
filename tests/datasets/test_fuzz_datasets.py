"""Hundreds of malformed sets, each read by another process that may neither hang nor die.

This module is also that process: it is started as a script, gets paths on its standard input and says on its standard
output what became of each.
"""

from __future__ import annotations

import hashlib
import json
import math
import resource
import select
import subprocess
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 60.0  # for one file, on a machine that does other things as well
MEMORY_BYTES = 16 * 2**30  # address space; XLA reserves much and uses little
ROWS, FLIPS, CUTS = 300, 60, 25
FLOATS, FLAGS = ("observations", "actions", "rewards"), ("terminals", "timeouts")
KEYS = FLOATS + FLAGS
MINARI_ID = "fuzz/hopper/simple-v0"

Mutation = Callable[[Path], None]


def contents() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    number = np.arange(1, ROWS + 1)
    return {
        "observations": generator.normal(size=(ROWS, 3)).astype(np.float32),
        "actions": generator.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
        "rewards": generator.normal(size=ROWS).astype(np.float32),
        "terminals": number % 10 == 5,
        "timeouts": number % 10 == 0,
    }


def write(path: Path, changes: dict[str, Any] | None = None, **options: Any) -> None:
    """A set with other arrays; None leaves one out."""
    with h5py.File(path, "w", **options) as file:
        for key, values in (contents() | (changes or {})).items():
            if values is not None:
                file[key] = values
        file["infos/qpos"] = np.zeros((ROWS, 6))


def write_sealed(path: Path) -> None:
    from o2o.datasets.files import hdf5

    with hdf5.create(path) as file:
        for key, values in contents().items():
            file[key] = values


def write_packed(path: Path) -> None:
    """In the newest format, in compressed chunks with checksums."""
    with h5py.File(path, "w", libver="latest") as file:
        for key, values in contents().items():
            file.create_dataset(
                key, data=values, chunks=(64, *values.shape[1:]), compression=4, fletcher32=True
            )


def write_minari(path: Path) -> None:
    arrays = contents()
    with h5py.File(path, "w") as file:
        for number in range(3):
            part = slice(100 * number, 100 * number + 100)
            group = file.create_group(f"episode_{number}")
            group["observations"] = arrays["observations"][[*range(100), 0]]
            group["actions"], group["rewards"] = arrays["actions"][part], arrays["rewards"][part]
            group["terminations"], group["truncations"] = np.zeros(100, bool), np.arange(100) == 99


def placed(path: Path, source: str) -> Path:
    """Where a set of that source lies below the directory of `path`."""
    place = {
        "d4rl": path.parent / "d4rl" / "hopper_medium-v2.hdf5",
        "minari": path.parent / MINARI_ID / "data" / "main_data.hdf5",
    }.get(source, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


# What the other process does.


def serve() -> None:
    """Reads sets until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from test_datasets import OWN

    from o2o.datasets import d4rl, loading
    from o2o.errors import ConfigError

    d4rl.SOURCES = ("http://127.0.0.1:9/",)
    for line in sys.stdin:
        job = json.loads(line)
        path, source = Path(job["path"]), job["source"]
        dataset = replace(OWN, source=source, path=path, id=MINARI_ID)
        if source == "d4rl":
            dataset = replace(dataset, name="hopper-medium-v2", task="hopper", quality="medium")
            d4rl.SETS["hopper-medium-v2"] = d4rl.PublishedFile(*job["published"])
        try:
            rows = loading.load_rows(dataset, path.parent, 3, 2)
            answer: dict[str, Any] = {"rows": digest(rows._asdict())}
        except ConfigError as error:
            answer = {"refused": error.problems}
        except Exception:
            answer = {"crash": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


def digest(arrays: dict[str, np.ndarray]) -> str:
    """Of what training sees; it must be well-formed."""
    assert all(len(values) == ROWS for values in arrays.values())
    assert all(np.isfinite(arrays[key]).all() for key in FLOATS)
    content = hashlib.sha256()
    for key in KEYS:
        content.update(np.ascontiguousarray(arrays[key]).tobytes())
    return content.hexdigest()


class Reader:
    """The other process, started again whenever it hung or died."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: Any = None

    def read(self, path: Path, **job: Any) -> dict[str, Any]:
        """What became of a file."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env={
                    "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
                    "MINARI_DATASETS_PATH": str(self.directory),
                    "no_proxy": "*",
                },
            )
        self.process.stdin.write(json.dumps({"path": str(path), **job}) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        line = self.process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        self.close()
        return {"crash": "died" if ready else "hung"}

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


# Mutations, by family: name, what makes the file, and whether it may still be read.


def in_bytes(write_base: Callable[[Path], None], seed: int) -> Iterator[tuple[str, Mutation]]:
    """Flips, cuts, zeroed stretches and appendices of a file's bytes."""

    def changed(change: Callable[[bytearray, Any], Any], number: int) -> Mutation:
        def make(path: Path) -> None:
            write_base(path)
            data = bytearray(path.read_bytes())
            generator = np.random.default_rng((seed, number))
            path.write_bytes(change(data, generator) or data)

        return make

    def flip(data: bytearray, generator: Any) -> None:
        data[generator.integers(len(data))] ^= 1 << generator.integers(8)

    def flip_in_the_structure(data: bytearray, generator: Any) -> None:
        data[generator.integers(min(len(data), 4096))] ^= 1 << generator.integers(8)

    def scramble(data: bytearray, generator: Any) -> None:
        start = generator.integers(len(data))
        data[start : start + 16] = generator.bytes(len(data[start : start + 16]))

    def blank(data: bytearray, generator: Any) -> None:
        start = generator.integers(len(data))
        data[start : start + 512] = bytes(len(data[start : start + 512]))

    def cut(data: bytearray, generator: Any) -> bytes:
        return bytes(data[: generator.integers(len(data))])

    def append(data: bytearray, generator: Any) -> bytes:
        return bytes(data) + generator.bytes(int(generator.integers(1, 1000)))

    for kind, count in (
        (flip, FLIPS),
        (flip_in_the_structure, FLIPS),
        (scramble, CUTS),
        (blank, CUTS),
        (cut, CUTS),
        (append, 5),
    ):
        for number in range(count):
            yield f"{kind.__name__} {number}", changed(kind, number)


def malformed() -> Iterator[tuple[str, Mutation]]:
    """Files that are valid HDF5 and no valid set."""

    def with_arrays(**changes: Any) -> Mutation:
        return lambda path: write(path, changes)

    def with_put(key: str, put: Callable[[h5py.File], Any]) -> Mutation:
        def make(path: Path) -> None:
            write(path, {key: None})
            with h5py.File(path, "a") as file:
                put(file)

        return make

    base = contents()
    for key in KEYS:
        values, size = base[key], base[key].shape[1:]
        yield f"no {key}", with_arrays(**{key: None})
        yield f"{key} renamed", with_arrays(**{key: None, key + "_": values})
        yield f"{key} a scalar", with_arrays(**{key: values.reshape(-1)[0]})
        yield f"{key} with an axis more", with_arrays(**{key: np.stack([values, values], axis=-1)})
        yield (
            f"{key} flat" if size else f"{key} wide",
            with_arrays(**{key: values.reshape(-1) if size else np.stack([values] * 3, 1)}),
        )
        yield f"{key} shorter", with_arrays(**{key: values[:-1]})
        yield f"{key} of no rows", with_arrays(**{key: values[:0]})
        yield f"{key} transposed", with_arrays(**{key: values.T if size else values[None]})
        for dtype in (np.complex64, [("x", np.float32)], "S4", "V4"):
            yield (
                f"{key} as {dtype}",
                with_put(key, lambda file, k=key, v=values, d=dtype: file.create_dataset(k, v.shape, d)),
            )
        for name, dtype in (
            ("strings", h5py.string_dtype()),
            ("references", h5py.ref_dtype),
            ("regions", h5py.regionref_dtype),
            ("lists", h5py.vlen_dtype(np.float32)),
        ):
            yield (
                f"{key} as {name}",
                with_put(key, lambda file, k=key, v=values, d=dtype: file.create_dataset(k, v.shape, d)),
            )
        yield f"{key} empty", with_put(key, lambda file, k=key: file.create_dataset(k, data=h5py.Empty("f4")))
        yield f"{key} a group", with_put(key, lambda file, k=key: file.create_group(k))
        yield f"{key} a type", with_put(key, lambda file, k=key: file.update({k: np.dtype("f4")}))
        yield (
            f"{key} elsewhere",
            with_put(key, lambda file, k=key: file.update({k: h5py.ExternalLink("base.hdf5", k)})),
        )
        yield (
            f"{key} in a system file",
            with_put(key, lambda file, k=key: file.update({k: h5py.ExternalLink("/etc/passwd", "/")})),
        )
        for target in ("/infos/qpos", "/nowhere", f"/{key}", "/../x"):
            yield (
                f"{key} linked to {target}",
                with_put(key, lambda file, k=key, t=target: file.update({k: h5py.SoftLink(t)})),
            )
        yield f"{key} virtual", with_put(key, lambda file, k=key, v=values: virtual(file, k, v, "base.hdf5"))
        yield (
            f"{key} virtual in itself",
            with_put(key, lambda file, k=key, v=values: virtual(file, k, v, ".")),
        )
        yield (
            f"{key} stored outside",
            with_put(
                key,
                lambda file, k=key, v=values: file.create_dataset(
                    k, v.shape, v.dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
                ),
            ),
        )
        yield (
            f"{key} declared endless",
            with_put(
                key,
                lambda file, k=key, v=values, s=size: file.create_dataset(
                    k, (2**60, *s), v.dtype, chunks=(64, *s)
                ),
            ),
        )
        yield (
            f"{key} declared endless and packed",
            with_put(
                key,
                lambda file, k=key, v=values, s=size: file.create_dataset(
                    k, (2**50, *s), v.dtype, chunks=(2**20, *s), compression="gzip"
                ),
            ),
        )
        yield (
            f"{key} never written",
            with_put(key, lambda file, k=key, v=values: file.create_dataset(k, v.shape, v.dtype)),
        )
        yield f"{key} half written", with_put(key, lambda file, k=key, v=values: half_written(file, k, v))
        yield (
            f"{key} of other filters",
            with_put(
                key,
                lambda file, k=key, v=values: file.create_dataset(
                    k, v.shape, np.int32 if v.dtype == bool else v.dtype, chunks=True, scaleoffset=3
                ),
            ),
        )
        yield f"{key} a bomb", lambda path, k=key: bomb(path, k)
    for key in FLOATS:
        for bad in (np.nan, np.inf, -np.inf, 1e300):
            yield f"{key} with {bad}", with_arrays(**{key: spoiled(base[key].astype(np.float64), bad)})
        for dtype in (np.int64, np.uint8, np.float16, np.longdouble, bool):
            yield f"{key} as {np.dtype(dtype)}", with_arrays(**{key: base[key].astype(dtype)})
    for key in FLAGS:
        for bad in (2, -1, 127):
            yield f"{key} with {bad}", with_arrays(**{key: spoiled(base[key].astype(np.int8), bad)})
        for bad in (0.5, np.nan, np.inf):
            yield f"{key} with {bad}", with_arrays(**{key: spoiled(base[key].astype(np.float32), bad)})
    yield "actions out of bounds", with_arrays(actions=base["actions"] * 1.5)
    yield "timeouts everywhere", with_arrays(timeouts=np.ones(ROWS, bool))
    yield "one row", with_arrays(**{key: base[key][:1] for key in KEYS})
    yield "no rows", with_arrays(**{key: base[key][:0] for key in KEYS})
    yield "another task's observations", with_arrays(observations=np.zeros((ROWS, 17), np.float32))
    yield "infos elsewhere", with_put("x", lambda file: file.update({"infos/a": h5py.ExternalLink("a", "/")}))
    yield "infos virtual", with_put("x", lambda file: virtual(file, "infos/v", base["rewards"], "base.hdf5"))
    yield "nothing", lambda path: write(path, dict.fromkeys(KEYS))
    yield "an empty file", lambda path: path.touch()
    yield "a page", lambda path: void(path.write_text("<html>403</html>"))
    yield (
        "an archive",
        lambda path: np.savez(path.with_suffix(".npz"), **base) or path.with_suffix(".npz").rename(path),
    )
    yield "a link to itself", lambda path: path.symlink_to(path)
    yield "a device", lambda path: path.symlink_to("/dev/zero")
    yield "a pipe", lambda path: void(subprocess.run(["mkfifo", str(path)], check=True))


def harmless() -> Iterator[tuple[str, Mutation]]:
    """Files that are unusual and mean the same."""

    def with_put(put: Callable[[h5py.File], Any]) -> Mutation:
        def make(path: Path) -> None:
            write(path)
            with h5py.File(path, "a") as file:
                put(file)

        return make

    def nested(file: h5py.File) -> None:
        group = file.create_group("deep")
        for _ in range(200):
            group = group.create_group("deeper")

    base = contents()
    columns = {key: base[key].reshape(ROWS, 1) for key in ("rewards", *FLAGS)}
    yield "a group in itself", with_put(lambda file: file.update({"infos/again": file["/"]}))
    yield "groups in groups", with_put(nested)
    yield "names that are not text", with_put(lambda file: file.create_group(b"\x8b\xff"))
    yield "links to nowhere", with_put(lambda file: file.update({"infos/x": h5py.SoftLink("/nowhere")}))
    yield "a second name", with_put(lambda file: file.update({"copy": file["rewards"]}))
    yield "attributes", with_put(lambda file: file.attrs.update({"x": "y" * 60_000}))
    yield "strings that nobody reads", with_put(lambda file: file.update({"notes": ["a", "b"]}))
    yield "columns", lambda path: write(path, columns)
    yield "doubles", lambda path: write(path, {key: base[key].astype(np.float64) for key in FLOATS})
    yield "big endian", lambda path: write(path, {key: base[key].astype(">f4") for key in FLOATS})
    yield "flags as numbers", lambda path: write(path, {key: base[key].astype(np.int64) for key in FLAGS})
    yield "newest format", lambda path: write(path, libver="latest")
    yield "user block", lambda path: write(path, userblock_size=2048)
    yield "packed", write_packed
    yield "sealed", write_sealed


def virtual(file: h5py.File, key: str, values: np.ndarray, source: str) -> None:
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[...] = h5py.VirtualSource(source, "rewards", values.shape, dtype=values.dtype)
    file.create_virtual_dataset(key, layout)


def half_written(file: h5py.File, key: str, values: np.ndarray) -> None:
    array = file.create_dataset(
        key, values.shape, values.dtype, chunks=(64, *values.shape[1:]), compression=4
    )
    array[:100] = values[:100]


def bomb(path: Path, key: str) -> None:
    """A small file, one array of which is large once it is unpacked."""
    write(path, {key: None})
    chunk = (2**24, *contents()[key].shape[1:])
    dtype = contents()[key].dtype
    zeros = zlib.compress(bytes(math.prod(chunk) * dtype.itemsize))
    with h5py.File(path, "a") as file:
        array = file.create_dataset(key, (2**30, *chunk[1:]), dtype, chunks=chunk, compression="gzip")
        for start in range(0, 2**30, 2**24):
            array.id.write_direct_chunk((start,) + (0,) * (len(chunk) - 1), zeros)


def spoiled(array: np.ndarray, bad: float) -> np.ndarray:
    array.reshape(-1)[len(array) // 2] = bad
    return array


def void(_: Any) -> None:
    """Drops a value, for lambdas."""


FAMILIES: dict[str, tuple[str, Callable[[Path], None], list[tuple[str, Mutation]], str]] = {
    "bytes of a sealed file": ("file", write_sealed, list(in_bytes(write_sealed, 1)), "refused or equal"),
    "bytes of D4RL's file": ("d4rl", write, list(in_bytes(write, 2)), "refused or equal"),
    "bytes of a file of one's own": ("file", write, list(in_bytes(write, 3)), "refused or well-formed"),
    "bytes of a packed file": (
        "file",
        write_packed,
        list(in_bytes(write_packed, 4)),
        "refused or well-formed",
    ),
    "bytes of a Minari set": (
        "minari",
        write_minari,
        list(in_bytes(write_minari, 5)),
        "refused or well-formed",
    ),
    "malformed sets": ("file", write, list(malformed()), "refused"),
    "harmless sets": ("file", write, list(harmless()), "equal"),
}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    running = Reader(tmp_path_factory.mktemp("minari"))
    yield running
    running.close()


def test_there_are_at_least_three_hundred_mutations():
    assert sum(len(mutations) for _, _, mutations, _ in FAMILIES.values()) >= 300


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_mutation_is_refused_in_clear_words_or_means_the_same(reader: Reader, family: str):
    source, write_base, mutations, wanted = FAMILIES[family]
    base = placed(reader.directory / "base.hdf5", source)
    write_base(base)
    published = (base.stat().st_size, hashlib.sha256(base.read_bytes()).hexdigest())
    original = reader.read(reader.directory / "base.hdf5", source=source, published=published)
    assert "rows" in original, original
    wrong = []
    for number, (name, mutate) in enumerate(mutations):
        root = reader.directory if source == "minari" else reader.directory / f"{family}-{number}"
        root.mkdir(exist_ok=True)
        path = placed(root / "set.hdf5", source)
        path.unlink(missing_ok=True)
        mutate(path)
        answer = reader.read(root / "set.hdf5", source=source, published=published)
        if problem := complaint(answer, wanted, original["rows"], path):
            wrong.append(f"{name}: {problem}")
        if source != "minari":
            for left in {p.name for p in path.parent.iterdir()} - {path.name, path.name + ".sha256.json"}:
                wrong.append(f"{name}: left {left}")
    assert not wrong, "\n".join(wrong)


def complaint(answer: dict[str, Any], wanted: str, original: str, path: Path) -> str:
    """What is wrong with what became of a file; nothing if it is as wanted."""
    if "crash" in answer:
        return answer["crash"]
    if "refused" in answer:
        clear = all(path.name in p and "\n" not in p and len(p) < 700 for p in answer["refused"])
        return "" if "refused" in wanted and clear else f"refused: {answer['refused']}"
    equal = answer["rows"] == original
    return "" if "well-formed" in wanted or ("equal" in wanted and equal) else f"read, {equal=}"


if __name__ == "__main__":
    serve()
