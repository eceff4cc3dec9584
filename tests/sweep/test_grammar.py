from __future__ import annotations

import pytest
from hydra.errors import ConfigCompositionException

from hydra_plugins.o2o.grammar import expand

OPTIONS = {
    "dataset": ["ant-medium-v2", "hopper-medium-replay-v2", "hopper-medium-v2"],
    "replay_init": ["empty", "offline"],
}


def options(group):
    return OPTIONS.get(group, [])


def test_the_command_line_is_a_product_of_its_sweeps():
    (product,) = expand(["algorithm=td3,td3_c", "seed=range(3)", "discount=0.9"], [], options)
    assert product.axes == {
        "algorithm": ["algorithm=td3", "algorithm=td3_c"],
        "seed": ["seed=0", "seed=1", "seed=2"],
        "discount": ["discount=0.9"],
    }


def test_a_glob_is_the_options_of_its_group():
    (product,) = expand(["dataset=glob(hopper*)"], [], options)
    assert product.axes["dataset"] == ["dataset=hopper-medium-replay-v2", "dataset=hopper-medium-v2"]


def test_a_glob_that_matches_nothing_is_refused():
    with pytest.raises(ConfigCompositionException, match="none of the options matches: empty, offline"):
        expand(["replay_init=glob(x*)"], [], options)


def test_the_values_of_a_grid_are_lists_single_values_or_sweeps():
    grid = {
        "algorithm": ["td3", "td3_bc"],
        "pretrain.updates": 0,
        "seed": "range(2)",
        "network.hidden_sizes": [[64, 64], [32]],
        "algorithm.action_gradient_clip": [None, 1e-5],
    }
    (product,) = expand([], [grid], options)
    axes = product.axes
    assert axes["algorithm"] == ["algorithm=td3", "algorithm=td3_bc"]
    assert axes["pretrain.updates"] == ["pretrain.updates=0"]
    assert axes["seed"] == ["seed=0", "seed=1"]
    assert axes["network.hidden_sizes"] == ["network.hidden_sizes=[64,64]", "network.hidden_sizes=[32]"]
    assert axes["algorithm.action_gradient_clip"] == [
        "algorithm.action_gradient_clip=null",
        "algorithm.action_gradient_clip=1e-05",
    ]


def test_the_command_line_wins_over_a_grids_same_key():
    first, second = expand(["seed=5"], [{"seed": "range(10)", "discount": 0.9}, {"seed": 1}], options)
    assert first.axes == {"discount": ["discount=0.9"], "seed": ["seed=5"]}
    assert second.axes == {"seed": ["seed=5"]}


@pytest.mark.parametrize("grid", [{"experiment": "demo"}, {"hydra.mode": "RUN"}, {"hydra/launcher": "basic"}])
def test_a_grid_may_not_choose_what_is_fixed_before_it(grid):
    with pytest.raises(ConfigCompositionException, match="cannot be swept"):
        expand([], [grid], options)


def test_sweeping_over_experiments_is_refused_with_the_reason():
    with pytest.raises(ConfigCompositionException, match="an experiment is a grid of its own"):
        expand(["experiment=demo,figure1"], [], options)


def test_a_continuous_sweep_is_refused():
    with pytest.raises(ConfigCompositionException, match="only lists"):
        expand(["discount=interval(0,1)"], [], options)


def test_seeds_are_asked_for_with_seed():
    with pytest.raises(ConfigCompositionException, match="Ask for seeds with seed="):
        expand(["launch.seeds=[0,1]"], [], options)
