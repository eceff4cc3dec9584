"""Offline-to-online reinforcement learning: pretrain on logged data, finetune online, watch for collapse."""
