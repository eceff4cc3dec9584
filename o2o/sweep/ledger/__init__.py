"""Records of launches, and SLURM's answers about their jobs."""
