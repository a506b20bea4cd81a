"""Pictures and captions: every source opens as `Pairs`, and everything else reads those."""
