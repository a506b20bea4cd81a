"""Training, which writes run folders."""
