"""The run folder: read, write, lock, checkpoint, log."""
