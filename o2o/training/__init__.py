"""The learning loop, its members, its metrics and its evaluations."""
