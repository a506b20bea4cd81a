"""Notebooks and sweeps in batch."""
