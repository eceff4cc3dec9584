"""Runs as the analysis sees them: read, grouped into cells, measured."""
