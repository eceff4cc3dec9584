"""This machine: its devices, its terminal, its signals, and where the project lies on it."""
