"""Pictures and captions. Every source opens as `Pairs`, and the rest of the library reads only those."""

from workbench.data.decode import BadSample, decode_image
from workbench.data.labelled.load import Attributes, Labelled, load_labelled
from workbench.data.load import available_splits, load_pairs
from workbench.data.pairs import Pairs

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
