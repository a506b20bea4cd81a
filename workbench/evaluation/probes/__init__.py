"""Probes: what embeddings and attention hold, beyond retrieval."""
