"""Data sets from data sets: mixtures, and overlap with test data."""
