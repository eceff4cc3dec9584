"""Draws docs/architecture.png: the rooms of the project, who imports whom, and the way of the data.

    python docs/architecture.py

Rooms, sizes and arrows are read from the source, so the picture is drawn again after a change rather than edited.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
# Where a room stands: column and row, from the left and from the bottom. Who imports stands above whom it imports.
PLACES = {
    "analysis": (5.4, 4.7),
    "sweep": (3.1, 4.7),
    "runs": (3.1, 3.7),
    "datasets": (0.8, 2.8),
    "config": (5.4, 2.8),
    "training": (3.1, 2.3),
    "algorithms": (5.4, 1.2),
    "replay": (3.1, 1.2),
    "envs": (0.8, 1.2),
    "machine": (0.8, 0.2),
    "types": (5.4, 0.2),
}
DATA = [
    ("datasets", "replay", "rows on the device"),
    ("envs", "replay", "a transition"),
    ("replay", "algorithms", "a batch"),
    ("algorithms", "training", "state, action"),
    ("training", "runs", "metrics, episodes,\nevaluations"),
    ("runs", "analysis", "runs/…/seed-3/*.jsonl"),
]
WIDTH, HEIGHT = 1.5, 0.5


def room(module: str) -> str | None:
    """The room that a module's dotted name lies in; the smallest modules of the ground floor are one."""
    parts = module.split(".")
    name = parts[0] if parts[0] == "analysis" else parts[1] if len(parts) > 1 else ""
    return "types" if name in ("types", "errors", "collapse") else name if name in PLACES else None


def survey() -> tuple[Counter[str], Counter[str], Counter[tuple[str, str]]]:
    """Modules and lines of each room, and how many modules of one import another."""
    modules: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    imports: Counter[tuple[str, str]] = Counter()
    for path in sorted([*ROOT.glob("o2o/**/*.py"), *ROOT.glob("analysis/**/*.py")]):
        own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
        if own is None:
            continue
        text = path.read_text(encoding="utf-8")
        modules[own] += path.name != "__init__.py"
        lines[own] += text.count("\n")
        named = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom) and n.module]
        found = {room(f"{n.module}.{alias.name}") for n in named for alias in n.names}
        imports.update((own, other) for other in found if other and other != own)
    return modules, lines, imports


def main() -> None:
    """Writes the picture beside this file."""
    modules, lines, imports = survey()
    figure, axes = plt.subplots(figsize=(11, 8))
    for (source, target), count in imports.items():
        style = {"color": "0.8", "lw": 0.5 + 0.15 * min(count, 12), "zorder": 1}
        ends = [
            tuple(v + s / 2 for v, s in zip(PLACES[r], (WIDTH, HEIGHT), strict=True))
            for r in (source, target)
        ]
        axes.add_patch(
            FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=9, shrinkA=24, shrinkB=28, **style)
        )
    for name, (x, y) in PLACES.items():
        axes.add_patch(
            FancyBboxPatch((x, y), WIDTH, HEIGHT, "round,pad=0.02", fc="white", ec="0.2", lw=1.2, zorder=3)
        )
        shown = "types, errors, collapse" if name == "types" else name
        axes.text(
            x + WIDTH / 2, y + 0.32, shown, ha="center", va="center", weight="bold", fontsize=10, zorder=4
        )
        size = f"{modules[name]} modules, {lines[name]:,} lines"
        axes.text(
            x + WIDTH / 2, y + 0.12, size, ha="center", va="center", fontsize=7.5, color="0.35", zorder=4
        )
    for source, target, what in DATA:
        (x, y), (u, v) = ((PLACES[r][0] + WIDTH / 2, PLACES[r][1] + HEIGHT / 2) for r in (source, target))
        axes.add_patch(
            FancyArrowPatch(
                (x, y),
                (u, v),
                connectionstyle="arc3,rad=0.18",
                arrowstyle="-|>",
                mutation_scale=16,
                shrinkA=72 if y == v else 40,
                shrinkB=72 if y == v else 40,
                color="#c1440e",
                lw=2,
                zorder=5,
            )
        )
        bend = 0.09
        place = ((x + u) / 2 + bend * (v - y), (y + v) / 2 - bend * (u - x))
        box = {"fc": "white", "ec": "none", "pad": 1, "alpha": 0.85}
        axes.text(*place, what, fontsize=8, color="#c1440e", ha="center", va="center", bbox=box, zorder=6)
    axes.set(xlim=(0.5, 7.2), ylim=(0, 5.4))
    axes.axis("off")
    note = (
        "grey: imports, always downwards; red: the way of the data, from a file or an environment to a figure"
    )
    axes.text(0.55, 5.32, note, fontsize=9, color="0.3")
    figure.savefig(ROOT / "docs" / "architecture.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
