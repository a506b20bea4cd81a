"""Trained students as folders that open_clip loads, with their model cards."""
