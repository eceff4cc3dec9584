"""Doors by which Hydra finds this project's sweeper; the logic is in `o2o.sweep`."""
