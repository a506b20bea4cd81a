"""Training: makes run folders."""
