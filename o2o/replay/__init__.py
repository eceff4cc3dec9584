"""The replay: what is added, and how batches are drawn."""
