"""Probes of what embeddings and attention contain, beyond retrieval."""
