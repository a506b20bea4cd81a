"""Checks for the first cells of notebooks, so that bad input is refused before anything slow starts."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from workbench.batch.notebook_runner import check_injected
from workbench.data.decode import BadSample, decode_image
from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.figures.display import follow_theme


def check_parameters(cells: Sequence[str] | None = None) -> None:
    """Raise SettingError for unknown parameters of this notebook and for values of the wrong type.

    Papermill only warns about them and continues with the defaults. `cells` are the sources of the cells
    executed so far, by default those of the running kernel. Figures of the notebook follow JupyterLab's theme
    from here on.
    """
    if cells is None:
        from IPython import get_ipython

        shell = get_ipython()
        cells = shell.user_ns["In"] if shell else []
    check_injected(cells)
    follow_theme()


def first_pictures(
    source: str, split: str, pictures: int, *, captions: int = 1, batch: int = 1, setting: str = "source"
) -> Pairs:
    """Load the first `pictures` of a split, with all their captions.

    Raises SettingError, naming `setting`, if no picture has `captions` captions, and, naming `batch`, if
    there are fewer than `batch` pictures.
    """
    pairs = load_pairs(source, split, scenes=pictures)  # the embedded dataset draws no more than these
    pairs = pairs.select(np.arange(min(pictures, len(pairs))))
    most = int(np.diff(pairs.first_caption).max())
    if most < captions:
        problem = (
            f"this notebook compares {captions} captions of a picture, but no picture has more than {most}"
        )
        remedy = "Give pictures with several captions, or use notebook 05."
        raise SettingError(setting, source, problem, remedy)
    if len(pairs) < batch:
        problem = f"{source} has only {len(pairs)} pictures in {split}"
        raise SettingError("batch", batch, problem, f"Use at most {len(pairs)}.")
    return pairs


def with_own(pairs: Pairs, picture: str | None, sentence: str | None) -> Pairs:
    """These pairs, with a picture and a sentence of the user's first, if there are any.

    A `sentence` without a `picture` is shown with the first picture of `pairs`. Raises SettingError for a
    picture that cannot be read, and for one without a sentence.
    """
    if picture is None and sentence is None:
        return pairs
    if sentence is None or not sentence.strip():
        problem = "a picture of your own needs a sentence about it"
        raise SettingError("sentence", sentence, problem, "Write what it shows, or what you look for in it.")
    images = [pairs.image(row) for row in range(len(pairs))]
    own = images[0]
    if picture is not None:
        try:
            own = decode_image(Path(picture).expanduser().read_bytes())
        except (OSError, BadSample) as error:
            remedy = "Give the path of a JPEG, PNG, WebP, GIF or BMP."
            raise SettingError("picture", picture, f"it cannot be read ({error})", remedy) from None
    images = [own, *images]
    known = pairs.table.select([name for name in pairs.table.column_names if name != "digest"])
    first = pa.Table.from_pylist([{"id": "your own", "captions": [sentence]}], known.schema)
    table = pa.concat_tables([first, known])
    digests = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images]
    table = table.append_column("digest", pa.array(digests))
    return Pairs(table, images.__getitem__, name=f"{pairs.name}-own", split=pairs.split)
