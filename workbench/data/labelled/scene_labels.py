"""The embedded dataset as zero-shot sets: its scenes of one object with their attributes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.data.labelled.labels import Attributes, Labelled
from workbench.data.pairs import Pairs
from workbench.data.scenes.catalogue import article, concepts

SCENE_TEMPLATES = ("a picture of {}", "a drawing of {}", "{}")  # the names include their article
VIEWS = {"names": "objects", "categories": "categories"}
_GROUPS = {"category": "categories", "size": "sizes", "background": "background"}


@dataclass(frozen=True)
class SceneAttributes(Attributes):
    """The category, size and background of scenes of one object, in the words of captions."""

    def sentence(self, chosen: Sequence[int]) -> str:
        """The prompt for these attributes, one per group: "a picture of a small bird on a red background"."""
        values = {self.groups[number]: self.names[number] for number in chosen}
        words = f"{values.get('size', '')} {values.get('category', 'thing')}".strip()
        sentence = self.template.format(f"{article(words)} {words}")
        if (colour := values.get("background")) is not None:
            sentence += f" on {article(colour)} {colour} background"
        return sentence


def has_scenes(pairs: Pairs) -> bool:
    """Whether these pairs have the columns that describe scenes."""
    return {"objects", *_GROUPS.values()} <= set(pairs.table.column_names)


def scene_labels(pairs: Pairs, view: str = "names", every: bool = False) -> Labelled:
    """The scenes of one object among pairs of the embedded dataset, labelled by a view: names or categories.

    Classes, in alphabetical order, are those that the pairs show or, with `every`, all of the dataset. Names
    that are held out of training are unseen. The images have attributes in three groups: category, size and
    background.
    """
    shown = pairs.table[VIEWS[view]].to_pylist()
    held_out = {concept.name for concept in concepts() if concept.held_out}
    known = {concept.name if view == "names" else concept.category for concept in concepts()}
    classes = sorted(known if every else {name for names in shown for name in names})
    single = [row for row, names in enumerate(shown) if len(names) == 1]
    labels = np.array([classes.index(shown[row][0]) for row in single], dtype=np.int64)
    phrases = {concept.name: concept.phrase for concept in concepts()}
    return Labelled(
        pairs.select(single),
        labels,
        [phrases.get(name) or f"{article(name)} {name}" for name in classes],
        SCENE_TEMPLATES,
        _attributes(pairs.select(single)),
        np.array([name in held_out for name in classes], dtype=bool) if view == "names" else None,
    )


def _attributes(scenes: Pairs) -> SceneAttributes:
    """The attributes of every scene of one object. Values are those that occur in these scenes."""
    values: dict[str, list[str]] = {}
    for group, column in _GROUPS.items():
        cells = scenes.table[column].to_pylist()
        values[group] = [cell[0] if isinstance(cell, list) else cell for cell in cells]
    names = [(group, value) for group, column in values.items() for value in sorted(set(column))]
    of_image = [[values[group][row] == value for group, value in names] for row in range(len(scenes))]
    return SceneAttributes(
        names=[value for _, value in names],
        groups=[group for group, _ in names],
        template="a picture of {}",
        plain="a picture of a thing",
        of_image=np.array(of_image, dtype=np.float32).reshape(len(scenes), len(names)),
    )
