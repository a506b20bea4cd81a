"""Yes/no questions about scenes of the embedded dataset, posed as a choice between two captions."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from workbench.data.pairs import Pairs
from workbench.data.scenes.catalogue import Concept, article, concepts


class Questions(NamedTuple):
    """Questions of one kind: rows of pictures in the pairs, true and false captions. Chance is 0.5."""

    rows: np.ndarray
    true: list[str]
    false: list[str]


def scene_questions(pairs: Pairs, seed: int = 0) -> dict[str, Questions]:
    """Questions about scenes by kind, one of each kind per scene; {} for pairs without the columns of scenes.

    "objects" asks whether a scene has one of its objects or another object of the split, "sizes" whether an
    object is small or large, "backgrounds" whether the background has its colour or another, and "relations",
    for scenes of two objects, whether their relation holds or the swapped one. Questions are drawn by `seed`
    and the row of the scene.
    """
    if not {"objects", "sizes", "background", "swapped_caption"} <= set(pairs.table.column_names):
        return {}
    scenes = pairs.table.select(["objects", "sizes", "background", "swapped_caption", "captions"]).to_pylist()
    names = sorted({name for scene in scenes for name in scene["objects"]})
    colours = sorted({scene["background"] for scene in scenes})
    kinds: dict[str, Callable[[dict, np.random.Generator], tuple[str, str] | None]] = {
        "objects": lambda scene, rng: _object(scene, rng, names),
        "sizes": _size,
        "backgrounds": lambda scene, rng: _background(scene, rng, colours),
        "relations": lambda scene, rng: (
            (scene["captions"][2], scene["swapped_caption"]) if scene["swapped_caption"] else None
        ),
    }
    questions = {}
    for number, (kind, ask) in enumerate(kinds.items()):
        answers = [
            (row, ask(scene, np.random.default_rng([seed, number, row]))) for row, scene in enumerate(scenes)
        ]
        kept = [(row, question) for row, question in answers if question is not None]
        questions[kind] = Questions(
            np.array([row for row, _ in kept], dtype=np.int64),
            [true for _, (true, _) in kept],
            [false for _, (_, false) in kept],
        )
    return questions


def _object(scene: dict, rng: np.random.Generator, names: list[str]) -> tuple[str, str] | None:
    absent = [name for name in names if name not in scene["objects"]]
    if not absent:
        return None
    present, other = _drawn(scene["objects"], rng), _drawn(absent, rng)
    return _picture_of(present), _picture_of(other)


def _size(scene: dict, rng: np.random.Generator) -> tuple[str, str] | None:
    at = int(rng.integers(len(scene["objects"])))
    name, size = scene["objects"][at], scene["sizes"][at]
    if scene["objects"].count(name) > 1:
        return None
    return _picture_of(name, size), _picture_of(name, {"small": "large", "large": "small"}[size])


def _background(scene: dict, rng: np.random.Generator, colours: list[str]) -> tuple[str, str] | None:
    others = [colour for colour in colours if colour != scene["background"]]
    if not others:
        return None
    name = _drawn(scene["objects"], rng)
    true, false = (
        f"{_picture_of(name)} on {article(colour)} {colour} background"
        for colour in (scene["background"], _drawn(others, rng))
    )
    return true, false


def _picture_of(name: str, adjective: str = "") -> str:
    return f"a picture of {_catalogue()[name].describe(adjective)}"


def _drawn(options: list[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


@cache
def _catalogue() -> dict[str, Concept]:
    return {concept.name: concept for concept in concepts()}
