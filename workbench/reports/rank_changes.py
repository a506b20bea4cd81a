"""Finds the queries that one run answers better than another, as examples rather than as evidence."""

from typing import NamedTuple

import numpy as np


class Change(NamedTuple):
    """A caption whose picture one run ranks higher than the other."""

    caption: int  # its index among all captions of the split
    image: int
    before: int  # rank of its picture
    after: int


def changed_most(before: np.ndarray, after: np.ndarray, image: np.ndarray, count: int) -> list[Change]:
    """The `count` captions whose rank improved by the largest factor, at most one per picture.

    `before` and `after` are ranks [T] from 1, `image` [T] is the picture of each caption. Only improved
    captions are returned. Factors are used because a step from rank 10 to 1 matters more than one from 900 to
    800. Swap `before` and `after` to get the captions that became worse.
    """
    factor = np.log(before) - np.log(after)
    changes: dict[int, Change] = {}
    for caption in np.argsort(-factor, kind="stable"):
        if factor[caption] <= 0 or len(changes) == count:
            break
        picture = int(image[caption])
        changes.setdefault(picture, Change(int(caption), picture, int(before[caption]), int(after[caption])))
    return list(changes.values())
