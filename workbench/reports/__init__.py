"""Comparison tables and self-contained HTML reports of run folders."""
