"""What teachers say about data, computed once and looked up ever after."""

from workbench.targets.chunks import Column
from workbench.targets.filling import Progress, fill
from workbench.targets.store import TargetStore, store_folder

__all__ = ["Column", "Progress", "TargetStore", "fill", "store_folder"]
