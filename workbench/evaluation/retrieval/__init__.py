"""Retrieval between images and captions."""
