"""Offline-to-online reinforcement learning: pretrain on logged data, finetune online, watch for collapse."""

__version__ = "0.2.0"
