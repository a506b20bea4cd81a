"""Where the regions of an image are: detectors, and proposers that need none."""
