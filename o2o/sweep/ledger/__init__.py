"""What a launch writes down, and what SLURM says of its jobs."""
