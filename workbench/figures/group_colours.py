"""Colours for groups of points: a palette for few, a wheel for many, kept when points are regrouped."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.figures.style import PALETTE

# Colours for more groups than the palette has; names on the map and hover texts tell the groups.
MANY = tuple(f"hsl({(137 * n) % 360},{55 + 15 * (n % 3)}%,{42 + 8 * (n % 4)}%)" for n in range(360))


def group_colours(
    labels: Sequence[Any] | np.ndarray,
    before: tuple[Sequence[Any] | np.ndarray, Mapping[str, str]] | None = None,
) -> dict[str, str]:
    """A colour for each of the groups in `labels` [n], the largest group first.

    `before` holds the labels [n] of an earlier grouping of the same points and its colours. A group takes the
    colour of the earlier group with which it shares the most points, and no two groups take the same one, so
    that colours stay where they were when points are regrouped.
    """
    names = [str(label) for label in labels]
    order = [name for name, _ in Counter(names).most_common()]
    colours: dict[str, str] = {}
    if before is not None:
        shared = Counter(zip(names, map(str, before[0]), strict=True))
        for (name, earlier), _ in shared.most_common():
            if name not in colours and before[1][earlier] not in colours.values():
                colours[name] = before[1][earlier]
    unused = [colour for colour in (*PALETTE, *MANY) if colour not in colours.values()]
    for number, name in enumerate(name for name in order if name not in colours):
        colours[name] = unused[number % len(unused)]
    return {name: colours[name] for name in order}
