"""Builds data sets from other data sets: mixtures, and sets that overlap with test data."""
