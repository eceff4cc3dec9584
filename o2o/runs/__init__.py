"""One run: what it is, where it lies, and how it gets from data to a result."""
