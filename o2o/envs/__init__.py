"""The tasks, stepped and saved; their reference returns."""
