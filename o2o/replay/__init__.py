"""The replay: how transitions are added, and batches drawn."""
