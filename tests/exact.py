"""What must be the same byte for byte, however often a run was interrupted."""

from __future__ import annotations

from o2o.runs.directory import layout
from o2o.runs.identity import pretrain_directory, run_directory

EXACT = (layout.TRAIN, layout.EVAL, layout.EPISODES, "checkpoints/final.npz")


def contents(config) -> dict[str, bytes]:
    """The bytes that must be the same, of the run and of its pretraining, if it has one."""
    places = {"run": run_directory(config), "pretrain": pretrain_directory(config)}
    kept = {
        f"{name}/{path.name}": path.read_bytes()
        for name, place in places.items()
        if place
        for path in (place / layout.CHECKPOINTS).glob("policy-*.npz")
    }
    return kept | {
        f"{name}/{file}": (place / file).read_bytes()
        for name, place in places.items()
        for file in EXACT
        if place is not None and (place / file).is_file()
    }
