"""What the first cells of the notebooks check, so that they refuse before anything slow."""

from collections.abc import Sequence

import numpy as np

from workbench.batch.notebook_runner import check_injected
from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs
from workbench.errors import SettingError


def check_parameters(cells: Sequence[str] | None = None) -> None:
    """Raise SettingError for parameters that this notebook does not have, or values of another type.

    Papermill only warns of them, and goes on with the defaults. `cells`: the sources that were executed so
    far; None: those of the running kernel.
    """
    if cells is None:
        from IPython import get_ipython

        shell = get_ipython()
        cells = shell.user_ns["In"] if shell else []
    check_injected(cells)


def first_pictures(
    source: str, split: str, pictures: int, *, captions: int = 1, batch: int = 1, setting: str = "source"
) -> Pairs:
    """The first `pictures` of a split, with all their captions.

    Raises SettingError, naming `setting`, where no picture has `captions` captions, and `batch` where there
    are fewer pictures than that.
    """
    pairs = load_pairs(source, split, scenes=pictures)  # of the embedded data set no more are drawn
    pairs = pairs.select(np.arange(min(pictures, len(pairs))))
    most = int(np.diff(pairs.first_caption).max())
    if most < captions:
        problem = f"its pictures have one caption each, and this notebook compares {captions} of one picture"
        raise SettingError(setting, source, problem, "Pictures with several captions, or notebook 05")
    if len(pairs) < batch:
        problem = f"{source} has only {len(pairs)} pictures in {split}"
        raise SettingError("batch", batch, problem, f"At most {len(pairs)}")
    return pairs
