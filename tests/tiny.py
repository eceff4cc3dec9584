"""The overrides of a whole job that takes seconds."""

from __future__ import annotations

TINY = [
    "dataset=file",
    "dataset.task=hopper",
    "tracker=none",
    "batch_size=16",
    "network.hidden_sizes=[8,8]",
    "pretrain.updates=20",
    "finetune.env_steps=150",
    "replay_init.min_size=16",
    "records.interval=10",
    "records.policies=[0,15,120]",
    "evaluation.episodes=2",
    "evaluation.switch_episodes=3",
    "evaluation.interval=100",
    "evaluation.online_intervals=[[20,10]]",
    "device.platform=cpu",
    "algorithm.exploration_noise=1.0",  # or it would stand for longer than it trains
]
