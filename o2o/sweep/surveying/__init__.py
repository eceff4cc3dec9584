"""What runs and jobs say of themselves, read from the disk and from SLURM."""
