"""The files of a run directory: their names, writers and readers."""
