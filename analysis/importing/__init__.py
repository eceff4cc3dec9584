"""Curves of other programs, made into run directories."""
