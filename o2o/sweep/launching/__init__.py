"""From jobs to processes, on this machine or by SLURM."""
