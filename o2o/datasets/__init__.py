"""Offline data: D4RL's files, regenerated sets, the user's own, Minari's."""
