"""The states of runs and jobs, read from the disk and from SLURM."""
