"""The formats that pairs of image and captions come in, one a file."""
