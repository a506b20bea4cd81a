"""Pictures and captions: every source opens as `Pairs`, and everything else reads those."""

from workbench.data.decode import BadSample, decode_image
from workbench.data.labelled import Attributes, Labelled, load_labelled
from workbench.data.pairs import Pairs
from workbench.data.sources import available_splits, load_pairs

__all__ = [
    "Attributes",
    "BadSample",
    "Labelled",
    "Pairs",
    "available_splits",
    "decode_image",
    "load_labelled",
    "load_pairs",
]
