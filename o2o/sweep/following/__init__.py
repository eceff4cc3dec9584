"""The commands that follow a sweep."""
