"""The proposed splits of zero-shot learning (Xian et al. 2017): seen and unseen classes, test images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.data.decode import BadSample
from workbench.data.source import check_file
from workbench.errors import SettingError

_FILES = ("res101.mat", "att_splits.mat")
_MOST_IMAGES = 10_000_000


class ProposedSplit(NamedTuple):
    """Class folders, and the test images as "class folder/file"."""

    seen: set[str]
    unseen: set[str]
    test: set[str]


def find_proposed_split(name: str, places: Sequence[Path]) -> Path | None:
    """The folder `xlsa17/data/NAME` in or beside one of `places`, or the place itself; None if not found."""
    for place in places:
        for folder in (place / "xlsa17" / "data" / name, place / "data" / name, place / name, place):
            if (folder / _FILES[1]).is_file():
                return folder
    return None


def read_proposed_split(folder: Path) -> ProposedSplit:
    """Read the split in a folder with `att_splits.mat` and `res101.mat`, which gives the file names.

    Indices in these files start at 1. Raises `SettingError` for damaged or contradictory files.
    Xian et al. 2017 (arXiv 1707.00600), section 4.
    """
    names = [_class_and_file(cell, folder) for cell in _load(folder / _FILES[0], "image_files").ravel()]
    parts = []
    for which in ("trainval_loc", "test_seen_loc", "test_unseen_loc"):
        number = _load(folder / _FILES[1], which).ravel()
        if number.dtype.kind not in "iuf" or not ((number >= 1) & (number <= len(names))).all():
            problem = f"{which} does not number the {len(names)} images of {_FILES[0]}"
            raise SettingError("splits", str(folder), problem, "Take both files from one release.")
        parts.append({names[index] for index in number.astype(np.int64) - 1})
    training, test_seen, test_unseen = parts
    seen = {name.split("/")[0] for name in training | test_seen}
    unseen = {name.split("/")[0] for name in test_unseen}
    if seen & unseen:
        problem = f"{min(seen & unseen)} would be both seen and unseen"
        raise SettingError("splits", str(folder), problem, "Take both files from one release.")
    return ProposedSplit(seen, unseen, test_seen | test_unseen)


def _load(path: Path, name: str) -> np.ndarray:
    """Read one variable of a MATLAB file. The others, such as the features, are skipped."""
    from scipy.io import loadmat, whosmat

    remedy = "Take it from xlsa17.zip of the proposed splits."
    try:
        check_file(path)
        sizes: dict[str, tuple[int, ...]] = {variable: shape for variable, shape, _ in whosmat(path)}
        if int(np.prod(sizes.get(name, (0,)), dtype=object)) > _MOST_IMAGES:
            raise ValueError(f"{name} of {sizes[name]}")
        return np.asarray(loadmat(path, variable_names=[name])[name])
    except BadSample as error:
        raise SettingError("splits", str(path), error.reason, remedy) from error
    except Exception as error:  # the reader raises anything on damaged bytes
        problem = f"{name} cannot be read ({type(error).__name__}: {error})"
        raise SettingError("splits", str(path), problem, remedy) from error


def _class_and_file(cell: Any, folder: Path) -> str:
    """The last two parts of a path in a cell. The path is one of the authors' machine."""
    path = np.asarray(cell).ravel()
    parts = str(path[0]).replace("\\", "/").strip("/ ").split("/") if path.size == 1 else []
    if len(parts) < 2:
        raise SettingError("splits", str(folder), "image_files holds no paths", "Take it from xlsa17.zip.")
    return "/".join(parts[-2:])
