"""Zero-shot sets: labelled images, one layout a file."""
