"""What teachers say about data, computed once and looked up ever after."""

from workbench.targets.chunks import Column
from workbench.targets.concepts import Concepts, fit_concepts, soft_labels
from workbench.targets.standardise import Standardiser
from workbench.targets.store import TargetStore, store_folder
from workbench.targets.store_writer import Progress, fill
from workbench.targets.text_embeddings import caption_embeddings

__all__ = [
    "Column",
    "Concepts",
    "Progress",
    "Standardiser",
    "TargetStore",
    "caption_embeddings",
    "fill",
    "fit_concepts",
    "soft_labels",
    "store_folder",
]
