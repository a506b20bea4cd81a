"""The formats of image-caption pairs, one a file."""
