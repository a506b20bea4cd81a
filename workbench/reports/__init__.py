"""Run folders in, comparison tables and self-contained pages out."""
