"""The embedded dataset as zero-shot sets: its scenes of one object, and what attributes they have."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.data.labelled.labels import Attributes, Labelled
from workbench.data.pairs import Pairs
from workbench.data.scenes.catalogue import article, concepts

SCENE_TEMPLATES = ("a picture of {}", "a drawing of {}", "{}")  # the names bring their article
VIEWS = {"names": "objects", "categories": "categories"}
_GROUPS = {"category": "categories", "size": "sizes", "background": "background"}


@dataclass(frozen=True)
class SceneAttributes(Attributes):
    """The category, size and background of scenes of one object, in the words of captions."""

    def sentence(self, chosen: Sequence[int]) -> str:
        """The prompt that names these, one of a group: "a picture of a small bird on a red background"."""
        values = {self.groups[number]: self.names[number] for number in chosen}
        words = f"{values.get('size', '')} {values.get('category', 'thing')}".strip()
        sentence = self.template.format(f"{article(words)} {words}")
        if (colour := values.get("background")) is not None:
            sentence += f" on {article(colour)} {colour} background"
        return sentence


def has_scenes(pairs: Pairs) -> bool:
    """Whether these pairs know what a scene shows."""
    return {"objects", *_GROUPS.values()} <= set(pairs.table.column_names)


def scene_labels(pairs: Pairs, view: str = "names", every: bool = False) -> Labelled:
    """The scenes of one object among pairs of the embedded dataset, labelled by a view: names or categories.

    Classes are all that the pairs show, in alphabetical order, or `every` one that the dataset has. Unseen
    are names held out of training. Attributes, of images: category, size and background, in three groups.
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
    """What every scene of one object is known to have; values are all that these scenes show."""
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
