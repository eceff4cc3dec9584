"""From run directories to tables and figures: collect finished runs, tabulate them, draw them. Never imports JAX."""
