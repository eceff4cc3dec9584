"""The command `protocol`: what runs do at the switch to online learning and after it, and in what they differ."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from o2o.machine.counting import counted
from o2o.runs.directory import science
from o2o.runs.directory.layout import FINETUNE
from o2o.runs.directory.protocol import protocol
from o2o.sweep.following.status import look
from o2o.sweep.surveying.survey import SeenCell

WIDTH, INDENT = 80, "  "


def run_protocol(root: Path, filters: Sequence[str]) -> int:
    """`protocol`: prints what all of the chosen runs share, and then what each kind has of its own; returns 0."""
    runs, notes = look(root, filters)
    cells = {id(run.cell): run.cell for run in runs if run.phase == FINETUNE}
    kinds: dict[tuple[tuple[str, str], ...], list[SeenCell]] = defaultdict(list)
    for cell in cells.values():
        if found := _of_cell(cell):
            kinds[tuple(found.items())].append(cell)
    if not kinds:
        print("\n".join([f"{root}: no runs that finetune {'match' if filters else 'yet'}", *notes]))
        return 0
    protocols = [dict(kind) for kind in kinds]
    shared = {
        item: words for item, words in protocols[0].items() if all(p.get(item) == words for p in protocols)
    }
    blocks = [_block("all of these", shared)] if len(kinds) > 1 else []
    for own, alike in zip(protocols, kinds.values(), strict=True):
        differing = (
            own if len(kinds) == 1 else {item: words for item, words in own.items() if item not in shared}
        )
        blocks.append(_block(_title(root, alike), differing))
    print("\n\n".join([*blocks, *notes]))
    return 0


def _of_cell(cell: SeenCell) -> dict[str, str] | None:
    """Returns the protocol of a cell's runs, the data left out; None where no directory tells it."""
    for run in cell.runs:
        try:
            found = protocol(science.read(run.path)["settings"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        return {item: words for item, words in found.items() if item != "data"}
    return None


def _title(root: Path, cells: Sequence[SeenCell]) -> str:
    algorithms = dict.fromkeys(cell.path.parts[-2] for cell in cells)
    places = dict.fromkeys(cell.path.relative_to(root).parts[0] for cell in cells)
    count = counted(sum(len(cell.runs) for cell in cells), "run")
    return f"{', '.join(algorithms)} on {', '.join(places)} ({count})"


def _block(title: str, items: Mapping[str, str]) -> str:
    widest = max(map(len, items), default=0)
    hanging = INDENT + " " * (widest + 2)
    lines = [
        textwrap.fill(words, WIDTH, initial_indent=f"{INDENT}{item:<{widest}}  ", subsequent_indent=hanging)
        for item, words in items.items()
    ]
    return "\n".join([textwrap.fill(f"{title}:", WIDTH), *lines])
