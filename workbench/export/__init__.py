"""Exports trained students as folders that open_clip loads, with model cards."""
