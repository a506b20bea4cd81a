"""Which queries a run answers better than another: examples to look at, not to conclude from."""

from typing import NamedTuple

import numpy as np


class Change(NamedTuple):
    """A caption whose picture one run ranks higher than the other."""

    caption: int  # its number among all captions of the split
    image: int
    before: int  # rank of its picture
    after: int


def changed_most(before: np.ndarray, after: np.ndarray, image: np.ndarray, count: int) -> list[Change]:
    """The `count` captions whose rank fell by the largest factor from `before` to `after`, one a picture.

    Ranks [T] from 1, `image` [T] the picture of each caption. Only captions that gained are among them; by
    factor, since from 900 to 800 little is gained, and from 10 to 1 much. Exchange the two for what was lost.
    """
    factor = np.log(before) - np.log(after)
    changes: dict[int, Change] = {}
    for caption in np.argsort(-factor, kind="stable"):
        if factor[caption] <= 0 or len(changes) == count:
            break
        place = int(image[caption])
        changes.setdefault(place, Change(int(caption), place, int(before[caption]), int(after[caption])))
    return list(changes.values())
