"""Attributes: three protocols on zero-shot sets and on the embedded dataset."""
