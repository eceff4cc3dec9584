"""Policies that runs learned: as functions, and in pictures."""
