"""Numbers as published: the paper's Tables 1 and C3, with its ODT and IQL columns. Nothing here was measured by us.

Source: Luo, Kay, Grefenstette, Deisenroth, *Finetuning from Offline Reinforcement Learning* (arXiv 2303.17396): mean
and standard deviation over ten seeds of D4RL-normalised scores, on D4RL's -v2 sets. ODT and IQL are what that paper
prints, which took them from Zheng, Zhang, Grover, *Online Decision Transformer* (arXiv 2202.05607); how many seeds they
rest on is not said there, and taken as ten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

SEEDS = 10
SCALE = (500_000, 200_000)
"""Pretraining updates and online env steps behind every number."""
SETTINGS: dict[str, Any] = {
    "pretrain.updates": SCALE[0],
    "finetune.env_steps": SCALE[1],
    "pretrain.algorithm.name": "td3_bc",
    "dataset.rows": None,  # all of the set's
    "dataset.mix": None,
    "batch_size": 256,  # Table B1, as all that follows but where it says otherwise
    "discount": 0.99,  # Acme's
    "learning_rate.policy": 3e-4,
    "learning_rate.critic": 3e-4,
    "network.hidden_sizes": [256, 256],
    "replay_init.capacity": 1_000_000,
    "replay_init.min_size": 1_000,
    "finetune.updates_per_step": 1,
    "finetune.warmup_steps": 0,
    "finetune.random_steps": 0,
    "finetune.critic_only_steps": 0,
    "finetune.first_updates_multiplier": 1,
    "finetune.reset": [],
    "finetune.batch_size": None,  # no other than while pretraining
    "finetune.learning_rate.policy": None,
    "finetune.learning_rate.critic": None,
    "evaluation.episodes": 10,  # the first author's other code
    "algorithm.action_gradient_clip": None,  # Table B2 has it for TD3-C alone, whose value is Acme's, 1
    **{
        f"{phase}.{key}": value
        for phase in ("pretrain.algorithm", "algorithm")
        for key, value in {
            "target_step": 0.005,
            "policy_delay": 2,
            "exploration_noise": 0.1,
            "target_noise": 0.2,
            "target_noise_clip": 0.5,
            "behavior_cloning_alpha": 2.5,
            "constraint_epsilon": 1e-5,  # Table B2
            "gradient_norm_clip": None,
            "dpg_reduce": "sum",  # the first author's correction of Acme, and the rest Acme's
            "bc_normaliser": "mean_abs_q",
            "target_noise_shared_in_batch": True,
            "delay_target_critic": False,
        }.items()
    },
}
"""The settings behind published numbers, by a configuration's dotted keys. What neither the paper nor the code that
it was built on says is no part of it."""
WITHIN = 0.10
"""Table 1's rule for bold type: within 10 % of the best method's mean."""
WITHIN_POINTS = 2.0
"""The least that "within" means, in points: below a score of 20 a tenth of it is less than evaluations differ by."""

PAPER, ODT_PAPER = "the paper", "the ODT paper, as printed in the paper"


class Score(NamedTuple):
    """Mean and standard deviation over seeds, in points; None where the paper prints no deviation."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Published:
    """One line of a published table."""

    dataset: str
    algorithm: str
    replay_init: str
    offline: Score
    online: Score
    delta: float
    """The printed gain, which is not always the difference of the printed means."""
    bold: bool
    """Whether its Online entry is printed in bold."""

    @property
    def source(self) -> str:
        """The publication that measured it."""
        return ODT_PAPER if self.algorithm in ("odt", "iql") else PAPER


def _table(replay_init: str, rows: str) -> tuple[Published, ...]:
    """Reads `dataset algorithm offline ± online ± δ [bold]` lines; a `-` stands for what is not printed."""
    found = []
    for row in rows.strip().splitlines():
        dataset, algorithm, *numbers = row.split()
        offline, spread, online, online_spread, delta = (
            float("nan") if n == "-" else float(n) for n in numbers[:5]
        )
        found.append(
            Published(
                dataset=f"{dataset}-v2",
                algorithm=algorithm,
                replay_init=replay_init,
                offline=Score(offline, None if spread != spread else spread),
                online=Score(online, online_spread),
                delta=delta,
                bold=numbers[5:] == ["bold"],
            )
        )
    return tuple(found)


TABLE_1 = _table(
    "offline",
    """
ant-medium-replay          td3    78.34 19.5   127.59 5.24  49.25 bold
ant-medium-replay          td3_c  85.68 13.93  121.72 10.06 36.04 bold
ant-medium-replay          td3_bc 84.99 15.95  126.73 3.15  41.74 bold
ant-medium-replay          odt    86.56 3.26   91.57  2.73  5.01
ant-medium-replay          iql    91.21 7.27   91.36  1.47  0.15
ant-medium                 td3    113.48 4.74  123.34 2.67  9.86  bold
ant-medium                 td3_c  112.44 5.71  123.05 2.31  10.61 bold
ant-medium                 td3_bc 111.44 5.79  120.91 7.97  9.47  bold
ant-medium                 odt    91.33 4.13   90.79  5.8   -0.54
ant-medium                 iql    99.92 5.86   100.85 2.02  0.93
halfcheetah-medium-replay  td3    43.82 0.49   70.13  3.4   26.3  bold
halfcheetah-medium-replay  td3_c  43.84 0.69   66.0   2.06  22.16 bold
halfcheetah-medium-replay  td3_bc 43.74 0.53   48.7   1.18  4.96
halfcheetah-medium-replay  odt    39.99 0.68   40.42  1.61  0.43
halfcheetah-medium-replay  iql    44.1  1.14   44.14  0.3   0.04
halfcheetah-medium         td3    46.99 0.4    69.69  2.57  22.7  bold
halfcheetah-medium         td3_c  46.92 0.42   65.85  2.46  18.93 bold
halfcheetah-medium         td3_bc 46.92 0.41   48.71  0.52  1.79
halfcheetah-medium         odt    42.72 0.46   42.16  1.48  -0.56
halfcheetah-medium         iql    47.37 0.29   47.41  0.15  0.04
hopper-medium-replay       td3    46.21 21.91  103.08 3.7   56.87 bold
hopper-medium-replay       td3_c  49.18 25.6   96.24  11.3  47.06 bold
hopper-medium-replay       td3_bc 51.36 24.94  87.72  14.96 36.36
hopper-medium-replay       odt    86.64 5.41   88.89  6.33  2.25
hopper-medium-replay       iql    92.13 10.43  96.23  4.35  4.1   bold
hopper-medium              td3    54.95 3.75   88.59  28.4  33.65 bold
hopper-medium              td3_c  56.54 4.71   87.3   24.62 30.77 bold
hopper-medium              td3_bc 55.48 4.69   58.44  6.72  2.96
hopper-medium              odt    66.95 3.26   97.54  2.1   30.59 bold
hopper-medium              iql    63.81 9.15   66.79  4.07  2.98
walker2d-medium-replay     td3    72.56 11.37  100.06 5.74  27.5  bold
walker2d-medium-replay     td3_c  74.78 10.97  97.21  3.07  22.44 bold
walker2d-medium-replay     td3_bc 79.12 7.2    90.26  2.27  11.14 bold
walker2d-medium-replay     odt    68.92 4.79   76.86  4.04  7.94
walker2d-medium-replay     iql    73.67 6.37   70.55  5.81  -3.12
walker2d-medium            td3    80.88 4.9    82.09  21.38 1.21
walker2d-medium            td3_c  79.34 5.7    78.97  21.03 -0.36
walker2d-medium            td3_bc 80.73 -      84.56  2.09  3.82
walker2d-medium            odt    72.19 6.49   76.79  2.3   4.6
walker2d-medium            iql    79.89 3.06   80.33  2.33  0.44
""",
)

TABLE_C3 = _table(
    "empty",
    """
ant-medium-replay          td3    78.6   22.55 122.91 15.16 44.31
ant-medium-replay          td3_c  82.2   24.9  125.5  5.19  43.3
ant-medium-replay          td3_bc 76.63  16.31 132.34 2.92  55.71
ant-medium                 td3    112.34 6.11  104.71 8.48  -7.63
ant-medium                 td3_c  114.15 4.7   119.34 7.9   5.19
ant-medium                 td3_bc 112.95 6.21  132.99 1.43  20.04
halfcheetah-medium-replay  td3    43.77  0.59  80.98  3.61  37.21
halfcheetah-medium-replay  td3_c  43.7   0.63  73.52  2.17  29.81
halfcheetah-medium-replay  td3_bc 43.83  0.47  62.35  1.41  18.52
halfcheetah-medium         td3    46.84  0.43  82.47  2.7   35.63
halfcheetah-medium         td3_c  46.86  0.36  75.93  3.28  29.08
halfcheetah-medium         td3_bc 46.96  0.37  62.88  1.25  15.92
hopper-medium-replay       td3    44.84  23.2  94.52  25.1  49.68
hopper-medium-replay       td3_c  45.69  22.31 102.38 3.01  56.69
hopper-medium-replay       td3_bc 49.22  22.95 102.75 2.43  53.53
hopper-medium              td3    55.14  4.48  90.91  33.52 35.78
hopper-medium              td3_c  56.38  5.86  90.58  20.91 34.2
hopper-medium              td3_bc 54.35  4.86  98.8   9.72  44.45
walker2d-medium-replay     td3    72.66  10.59 98.94  10.38 26.28
walker2d-medium-replay     td3_c  75.24  9.78  105.35 11.01 30.12
walker2d-medium-replay     td3_bc 73.55  8.18  104.16 4.66  30.61
walker2d-medium            td3    80.16  5.1   85.19  19.55 5.03
walker2d-medium            td3_c  80.41  4.99  97.54  11.88 17.13
walker2d-medium            td3_bc 82.26  1.32  97.48  3.45  15.22
""",
)

DATASETS = tuple(dict.fromkeys(row.dataset for row in TABLE_1))
"""The paper's eight, in its order."""


def other_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a run's flat configuration that are not those behind the published numbers, by their keys.

    A key that the configuration does not have is none: it was written before there was one, and behaved as the paper.
    """
    return {
        key: settings[key]
        for key in SETTINGS
        if key in settings and settings[key] != of_the_paper(key, settings)
    }


def of_the_paper(key: str, settings: Mapping[str, Any]) -> Any:
    """The paper's value of a setting, for the algorithm of a run."""
    clipped = key == "algorithm.action_gradient_clip" and settings["algorithm.name"] == "td3_c"
    return 1.0 if clipped else SETTINGS[key]


def find(dataset: str, algorithm: str, replay_init: str) -> Published | None:
    """The published line of an arm, of a set with that very name; None where there is none."""
    for row in TABLE_1 + TABLE_C3:
        if (row.dataset, row.algorithm, row.replay_init) == (dataset, algorithm, replay_init):
            return row
    return None


def margin(mean: float) -> tuple[float, float]:
    """Returns how near a score rivals a mean: a tenth of its size, in either direction, and at least two points.

    Returns:
        Slope and intercept of the margin as a line in the score, so that the margin of every seed's score averages to
        the margin of their mean: slope · mean + intercept.
    """
    if WITHIN * abs(mean) >= WITHIN_POINTS:
        return (WITHIN if mean > 0 else -WITHIN), 0.0
    return 0.0, WITHIN_POINTS


def within_of_best(means: dict[str, float]) -> set[str]:
    """Returns those that the bold rule marks: the best, and all whose mean rivals it (`margin`)."""
    best = max(means.values())
    slope, intercept = margin(best)
    return {name for name, mean in means.items() if mean >= best - slope * best - intercept}


def departures() -> list[str]:
    """The Online entries of Table 1 whose type is not what the paper's own rule gives, one line each."""
    found = []
    for dataset in DATASETS:
        rows = [row for row in TABLE_1 if row.dataset == dataset]
        marked = within_of_best({row.algorithm: row.online.mean for row in rows})
        best = max(row.online.mean for row in rows)
        for row in rows:
            if row.bold != (row.algorithm in marked):
                name = row.algorithm.upper().replace("_", "-")
                printed, rule = ("bold", "plain") if row.bold else ("plain", "bold")
                found.append(
                    f"{dataset}, {name}: printed {printed}, {rule} by the rule "
                    f"({row.online.mean:g}; the best is {best:g}, and 10 % below it {(1 - WITHIN) * best:.2f})"
                )
    return found
