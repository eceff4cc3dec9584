"""Bodies of evidence: measured runs of one kind of data, length and setting, among which a claim is judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from analysis.data import published
from analysis.data.cells import Cell, display_name, word
from analysis.data.measures import Arm, Measured
from analysis.data.runs import Finetuning
from analysis.tables.forms import thousands
from o2o.config.dataset_names import stands_for

Setting = tuple[str, str]
"""An algorithm, and what its replay starts with."""

SOURCES = {"d4rl": "D4RL data", "regenerated": "regenerated data", "imported": "imported curves"}


@dataclass(frozen=True, eq=False)
class Evidence:
    """The measured runs of one body, and how to find an arm among them."""

    source: str
    env_steps: int
    """The length of the online phase, of all of them."""
    arms: tuple[Arm, ...]
    from_scratch: tuple[Cell, ...]
    ambiguous: set[str] = field(default_factory=set)
    """Arms that could not be used because several settings look the same; filled while claims are judged."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets there are, in the order of the arms, without several that stand for one of the paper's."""
        names = tuple(dict.fromkeys(arm.cell.dataset for arm in self.arms))
        count = Counter(map(stands_for, names))
        if twice := [name for name in names if count[stands_for(name)] > 1]:
            self.ambiguous.add(f"{' and '.join(twice)}, the same data in several forms")
        return tuple(name for name in names if count[stands_for(name)] == 1)

    @cached_property
    def ratios(self) -> tuple[float, ...]:
        """The offline ratios there are, from the least."""
        shares = {arm.cell.offline_ratio for arm in self.arms if not arm.cell.moving_ratio}
        return tuple(sorted(share for share in shares if share is not None))

    def arm(self, dataset: str, setting: Setting, ratio: float | None = None) -> Arm | None:
        """The arm of that look; None where there is none, or several that differ in something else."""
        found = self._by_look.get((dataset, *setting, ratio), [])
        if len(found) > 1:
            variants = ", ".join(arm.cell.variant for arm in found)
            name = display_name(found[0].cell.algorithm)
            self.ambiguous.add(f"{name} on {dataset}, replay {found[0].cell.replay}: {variants}")
        return found[0] if len(found) == 1 else None

    @cached_property
    def _by_look(self) -> dict[tuple[str, str, str, float | None], list[Arm]]:
        looks: dict[tuple[str, str, str, float | None], list[Arm]] = {}
        for arm in self.arms:
            if not arm.cell.moving_ratio:  # of which the paper says nothing
                looks.setdefault(arm.cell.look, []).append(arm)
        return looks

    def together(self, dataset: str, settings: Sequence[Setting]) -> list[tuple[Measured, ...]]:
        """The runs of these arms that share a pretraining, a tuple each; none where an arm is missing."""
        arms = [self.arm(dataset, setting) for setting in settings]
        runs = [arm.by_pretraining for arm in arms if arm]
        if len(runs) < len(settings):
            return []
        return [tuple(by[key] for by in runs) for key in runs[0] if all(key in other for other in runs)]

    def scratch(self, task: str) -> Cell | None:
        """TD3 from scratch on a task."""
        found = [c for c in self.from_scratch if c.first.task == task and c.algorithm == "td3"]
        if len(found) > 1:
            variants = ", ".join(cell.variant for cell in found)
            self.ambiguous.add(f"TD3 from scratch on {task}: {variants}")
        return found[0] if len(found) == 1 else None


def bodies_of_evidence(cells: Sequence[Cell], arms: Sequence[Arm]) -> tuple[Evidence, ...]:
    """Runs on D4RL's data, on regenerated data and on others', of other lengths and settings, never mixed.

    Training from scratch belongs to all of its length whose online settings are its own.
    """
    groups: dict[tuple[str, int, int, tuple[str, ...]], list[Arm]] = {}
    for arm in arms:
        first = arm.cell.first
        groups.setdefault((first.source, first.switch, first.budget, _unlike_the_paper(first)), []).append(
            arm
        )
    found = []
    for (source, updates, env_steps, unlike), own in groups.items():
        name = SOURCES.get(source, f"{source} data")
        if (updates, env_steps) != published.SCALE:
            name += f", {thousands(env_steps)} env steps"
            name += "" if source == "imported" else f" after {thousands(updates)} updates"
        online = _online(unlike)
        scratch = tuple(
            cell
            for cell in cells
            if cell.first.without_data
            and cell.first.budget == env_steps
            and _online(_unlike_the_paper(cell.first)) == online
        )
        found.append(Evidence(", ".join([name, *unlike]), env_steps, tuple(own), scratch))
    return tuple(found)


def _unlike_the_paper(run: Finetuning) -> tuple[str, ...]:
    """Returns the settings that are not the paper's, but for the scale and those of one algorithm or set.

    Imported curves have none: what was written down for them stands in for what nobody recorded.
    """
    if run.source == "imported":
        return ()
    return tuple(
        f"{key}={word(value)}"
        for key, value in published.other_settings(run.settings).items()
        if not key.startswith(("algorithm.", "finetune.env_steps", "pretrain.updates"))
        and (run.source == "d4rl" or not key.startswith("dataset."))
    )


def _online(unlike: Sequence[str]) -> tuple[str, ...]:
    return tuple(setting for setting in unlike if not setting.startswith(("pretrain.", "dataset.")))
