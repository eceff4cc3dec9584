"""The paper's claims as contrasts: what would have to be above 0 where the paper is right, and on which datasets.

A claim is a contrast in points for each dataset it speaks of, or several that must all be above 0, and a rule how the
datasets make one verdict (`analysis.claims.verdicts`). What only needs Offline and Online scores is also computed
from the paper's own tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from analysis.claims import contrasts
from analysis.claims.contrasts import Conditions
from analysis.claims.evidence import Evidence
from analysis.data import published
from o2o.config.dataset_names import stands_for

TD3, TD3_C, TD3_BC = "td3", "td3_c", "td3_bc"

_, ONLINE_STEPS = published.SCALE
DATASETS = tuple(stands_for(dataset) for dataset in published.DATASETS)
TASKS = tuple(dict.fromkeys(dataset.split("-")[0] for dataset in DATASETS))


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper, and the contrast that decides it."""

    name: str
    says: str
    where: str
    estimand: str
    rule: Literal["mean", "all"] | int
    """`mean`: on average over the datasets; `all`: on every one; a number: on at least so many."""
    runs: Callable[[Evidence], Conditions]
    tables: Callable[[], Conditions] | None = None
    """The same from the paper's own tables; None where they do not have it."""
    over: tuple[str, ...] = DATASETS
    """The datasets or tasks that it speaks of: it holds where it does so on all of them."""
    env_steps: int = 0
    """The length of the online phase that it speaks of: no shorter one can decide it."""


CLAIMS = (
    Claim(
        "td3-collapses",
        "Finetuning with TD3 suffers from policy collapse",
        "3.2, Figure 1",
        "TD3's regret − the least that is called a collapse, replay offline",
        "mean",
        contrasts.collapses(TD3, "offline"),
    ),
    Claim(
        "td3-collapses-when-empty",
        "TD3 collapses independent of whether offline data is utilized",
        "3.3, Figure 2",
        "TD3's regret − the least that is called a collapse, replay empty",
        "mean",
        contrasts.collapses(TD3, "empty"),
    ),
    Claim(
        "td3-bc-does-not-collapse",
        "TD3-BC remains stable, with the offline data and without",
        "3.3, Figure 2",
        "the least that is called a collapse − TD3-BC's regret, with either replay",
        "mean",
        contrasts.does_not_collapse(TD3_BC, ("offline", "empty")),
    ),
    Claim(
        "collapse-is-no-fluctuation",
        "Collapse is distinct from the fluctuations typical of off-policy learning",
        "3.2",
        "TD3's regret at the switch − its regret in later windows of the same length",
        "mean",
        contrasts.beyond_fluctuations,
    ),
    Claim(
        "medium-is-worse",
        "Collapse is more severe on medium than on medium-replay",
        "3.2, Figure 1",
        "TD3's regret on medium − on medium-replay, replay offline",
        "mean",
        contrasts.medium_is_worse,
        over=TASKS,
    ),
    Claim(
        "td3-rivals-td3-bc",
        "TD3 after 200k steps always rivals or surpasses TD3-BC",
        "3.2, Table 1",
        "Online of TD3 − (of TD3-BC − its margin), replay offline",
        "all",
        contrasts.rivals((TD3, "offline"), (TD3_BC, "offline")),
        contrasts.table_rivals((TD3, "offline"), (TD3_BC, "offline")),
        env_steps=ONLINE_STEPS,
    ),
    Claim(
        "td3-bc-improves-slowly",
        "TD3-BC improves more slowly than TD3",
        "3.2, Figure 1",
        "δ of TD3 − of TD3-BC, replay offline (Online from the tables)",
        "mean",
        contrasts.contrast((TD3, "offline"), (TD3_BC, "offline"), lambda run: run.delta),
        contrasts.table_contrast((TD3, "offline"), (TD3_BC, "offline")),
        env_steps=ONLINE_STEPS,
    ),
    Claim(
        "td3-bc-gains-from-empty",
        "TD3-BC improves significantly without the offline data",
        "3.3, Table C3",
        "Online of TD3-BC with an empty replay − with the offline data",
        "all",
        contrasts.contrast((TD3_BC, "empty"), (TD3_BC, "offline"), contrasts.online),
        contrasts.table_contrast((TD3_BC, "empty"), (TD3_BC, "offline")),
        env_steps=ONLINE_STEPS,
    ),
    Claim(
        "td3-bc-rivals-on-six-of-eight",
        "Without offline data TD3-BC rivals or outperforms TD3 on six of eight datasets",
        "3.3, Figure 2",
        "Online of TD3-BC − (of TD3 − its margin), replay empty",
        6,
        contrasts.rivals((TD3_BC, "empty"), (TD3, "empty")),
        contrasts.table_rivals((TD3_BC, "empty"), (TD3, "empty")),
        env_steps=ONLINE_STEPS,
    ),
    Claim(
        "td3-gains-from-empty",
        "TD3 can obtain higher performance without the offline data",
        "3.3, Figure 2",
        "Online of TD3 with an empty replay − with the offline data",
        "mean",
        contrasts.contrast((TD3, "empty"), (TD3, "offline"), contrasts.online),
        contrasts.table_contrast((TD3, "empty"), (TD3, "offline")),
        env_steps=ONLINE_STEPS,
    ),
    Claim(
        "walker2d-medium-replay-is-the-exception",
        "On walker2d-medium-replay, TD3 collapses when not initialised with the offline data",
        "3.3",
        "TD3's regret with an empty replay − with the offline data, walker2d-medium-replay",
        "all",
        contrasts.regrets([(TD3, "empty"), (TD3, "offline")], [1.0, -1.0]),
        over=("walker2d-medium-replay",),
    ),
    Claim(
        "ratios-speed-td3-bc-up",
        "A smaller share of offline samples lets TD3-BC improve faster",
        "C.1, Figure 4",
        "area under TD3-BC's curve at the least offline share − at the greatest",
        "mean",
        contrasts.ratios_speed_up,
    ),
    Claim(
        "ratios-do-not-rescue-td3",
        "TD3 still collapses with every ratio",
        "C.1, Figure 4",
        "TD3's regret − the least that is called a collapse, at every ratio",
        "mean",
        contrasts.ratios_do_not_rescue,
    ),
    Claim(
        "td3-c-is-steadier",
        "TD3-C is more stable than TD3",
        "5, Figure 3",
        "regret of TD3 − of TD3-C, replay offline",
        "mean",
        contrasts.regrets([(TD3, "offline"), (TD3_C, "offline")], [1.0, -1.0]),
    ),
    Claim(
        "td3-c-is-steadier-when-empty",
        "TD3-C's effect is more significant when no offline data is used",
        "5, Figure 3",
        "(regret of TD3 − of TD3-C) with an empty replay − the same with the offline data",
        "mean",
        contrasts.regrets(
            [(TD3, "empty"), (TD3_C, "empty"), (TD3, "offline"), (TD3_C, "offline")], [1.0, -1.0, -1.0, 1.0]
        ),
    ),
    Claim(
        "td3-c-can-collapse",
        "TD3-C can still collapse when preloaded, as in ant-medium",
        "5, Figure 3",
        "TD3-C's regret − the least that is called a collapse, ant-medium, replay offline",
        "all",
        contrasts.collapses(TD3_C, "offline"),
        over=("ant-medium",),
    ),
    Claim(
        "td3-c-improves-faster",
        "TD3-C can improve faster than TD3-BC",
        "5, Figure 3",
        "Online of TD3-C − of TD3-BC, replay offline",
        "mean",
        contrasts.contrast((TD3_C, "offline"), (TD3_BC, "offline"), contrasts.online),
        contrasts.table_contrast((TD3_C, "offline"), (TD3_BC, "offline")),
        env_steps=ONLINE_STEPS,
    ),
    Claim(
        "scratch-is-worse",
        "TD3 without pretraining performs worse than with",
        "3.2, Figure 1",
        "Online of TD3 after pretraining − from scratch",
        "all",
        contrasts.scratch_is_worse,
        env_steps=ONLINE_STEPS,
    ),
    Claim(
        "td3-better-than-odt-and-iql",
        "The proposed approaches are consistently better than ODT and IQL: TD3",
        "5, Table 1",
        "Online of TD3 − of the better one of ODT and IQL as published",
        "all",
        contrasts.better_than_published(TD3),
        contrasts.table_better(TD3),
        env_steps=ONLINE_STEPS,
    ),
    Claim(
        "td3-c-better-than-odt-and-iql",
        "The proposed approaches are consistently better than ODT and IQL: TD3-C",
        "5, Table 1",
        "Online of TD3-C − of the better one of ODT and IQL as published",
        "all",
        contrasts.better_than_published(TD3_C),
        contrasts.table_better(TD3_C),
        env_steps=ONLINE_STEPS,
    ),
    Claim(
        "the-budget-decides",
        "Conclusions depend on the number of online samples allowed: few favour what is stable",
        "6",
        "TD3-BC's lead over TD3 after 10 000 env steps, and TD3's over TD3-BC at the end, replay offline",
        "mean",
        contrasts.budget_decides,
        env_steps=ONLINE_STEPS,
    ),
)
