"""The embedded dataset: scenes drawn from emoji, with captions."""
