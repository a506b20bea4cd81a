"""Evaluates the sets of hard captions in a recipe: SugarCrepe, ARO, Winoground."""

import os
import re
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.data.composition import Choices, find_layouts, open_choices
from workbench.errors import SettingError
from workbench.evaluation.attributes.protocols import per_class_results
from workbench.evaluation.encode import encode_images, encode_texts
from workbench.evaluation.probes.composition import swap_accuracy
from workbench.evaluation.retrieval.normalized import Matrix
from workbench.models.dual_encoder import DualEncoder
from workbench.recipe import Recipe

SETTING = "evaluation.composition"
FEWEST = 25  # questions that a pair of attributes needs to count in ARO's macro accuracy
# Relations that ARO's macro accuracy excludes, because most are symmetric or rare: Yuksekgonul et al. 2023,
# from the authors' notebook that reproduces VG-Relation.
UNCOUNTED = frozenset(
    """adjusting, around, attached to, beside, between, bigger than, biting, boarding, brushing, by,
    chewing, cleaning, climbing, close to, coming from, coming out of, contain, crossing, dragging,
    draped over, drinking, drinking from, driving, driving down, driving on, eating from, eating in,
    enclosing, exiting, facing, filled with, floating in, floating on, flying, flying above, flying
    in, flying over, flying through, full of, going down, going into, going through, grazing in,
    growing in, growing on, guiding, hanging from, hanging in, hanging off, hanging over, higher
    than, holding onto, hugging, in between, jumping off, jumping on, jumping over, kept in, larger
    than, leading, leaning over, leaving, licking, longer than, looking in, looking into, looking
    out, looking over, looking through, lying next to, lying on top of, making, mixed with, mounted
    on, moving, near, next to, of, on the back of, on the edge of, on the front of, on the other
    side of, on the side of, opening, painted on, parked at, parked beside, parked by, parked in,
    parked in front of, parked near, parked next to, perched on, petting, piled on, playing, playing
    in, playing on, playing with, pouring, reaching for, reading, reflected on, riding on, running
    in, running on, running through, seen through, sitting behind, sitting beside, sitting by,
    sitting in front of, sitting near, sitting next to, sitting under, skiing down, skiing on,
    sleeping in, sleeping on, smiling at, sniffing, splashing, sprinkled on, stacked on, standing
    against, standing around, standing behind, standing beside, standing in front of, standing near,
    standing next to, staring at, stuck in, surrounding, swimming in, swinging, talking to, topped
    with, touching, traveling down, traveling on, tying, typing on, underneath, wading in, waiting
    for, walking across, walking by, walking down, walking next to, walking through, with, working
    in, working on, worn on, wrapped around, wrapped in""".replace("\n    ", " ").split(", ")
)

Scores = dict[str, float]
Queries = dict[str, np.ndarray]


class CompositionSet(NamedTuple):
    """An entry of `evaluation.composition`, or one of the sets in its folder."""

    entry: str
    layout: str
    files: tuple[Path, ...]
    image_folder: Path | None

    def open(self, recipe: Recipe) -> Choices:
        """Open its questions. Raises SettingError if that is impossible."""
        data = recipe.data
        return open_choices(
            self.files, self.layout, self.entry, self.image_folder, data.max_pixels, data.max_failed
        )


def composition_sets(recipe: Recipe, taken: Collection[str] = ()) -> dict[str, CompositionSet]:
    """The sets in `evaluation.composition`, by name.

    SugarCrepe's files in a folder are one set with the name of the folder (or of the folder above `data`).
    Every other file is a set with the name of the file, and `examples.jsonl` is winoground. Raises
    `SettingError` if a set does not exist, and if two names are equal or one is in `taken`.
    """
    sets: dict[str, CompositionSet] = {}
    for entry in recipe.evaluation.composition:
        source, folder = entry, None
        if not os.path.exists(os.path.expanduser(entry)):  # the name of a file may contain an @
            source, at, place = entry.partition("@")
            folder = Path(place).expanduser() if at else None
            if folder is not None and not folder.is_dir():
                remedy = "After @ comes the folder of the pictures."
                raise SettingError(SETTING, entry, f"{place}: no such folder", remedy)
        for name, layout, files in _named(Path(source).expanduser(), find_layouts(source)):
            if name in sets or name in taken:
                problem = f"its results would be called {name!r}, as others are"
                raise SettingError(SETTING, entry, problem, "Give its file or folder another name.")
            sets[name] = CompositionSet(entry, layout, files, folder)
    return sets


def _named(source: Path, layouts: dict[Path, str]) -> list[tuple[str, str, tuple[Path, ...]]]:
    sets = []
    ours = tuple(file for file, layout in layouts.items() if layout == "sugar_crepe")
    if ours:
        place = source.resolve()
        name = source.stem if source.is_file() else (place.parent if place.name == "data" else place).name
        sets.append((_plain(name), "sugar_crepe", ours))
    for file, layout in layouts.items():
        if layout != "sugar_crepe":
            name = "winoground" if file.stem == "examples" else file.stem
            sets.append((_plain(name), layout, (file,)))
    return sets


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-._") or "composition"


def evaluate_composition(
    model: DualEncoder, recipe: Recipe, entry: CompositionSet
) -> tuple[dict[str, Any], Queries]:
    """The report on one set (values under `scores`), and the results of its questions."""
    choices = entry.open(recipe)
    image, rows, failed = encode_images(model, choices.pairs, recipe.evaluation.batch)
    place = np.full(len(choices.pairs), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    readable = np.flatnonzero((place[choices.images] >= 0).all(axis=1))
    captions = [choices.captions[question] for question in readable]
    number = {text: position for position, text in enumerate(dict.fromkeys(chain(*captions)))}
    scores, queries = choice_scores(
        choices.layout,
        image,
        encode_texts(model, list(number), recipe.evaluation.batch),
        place[choices.images[readable]],
        [tuple(number[text] for text in texts) for texts in captions],
        [choices.categories[question] for question in readable],
        [choices.groups[question] for question in readable],
    )
    report = {
        "data": choices.fingerprint,
        "scores": scores,
        "images": len(rows),
        "captions": len(number),
        "questions": len(readable),
        "failed": dict(failed + choices.pairs.rejected),
    }
    return report, queries


def choice_scores(
    layout: str,
    image: Matrix,
    text: Matrix,
    images: np.ndarray,
    texts: Sequence[tuple[int, ...]],
    categories: Sequence[str],
    groups: Sequence[str],
) -> tuple[Scores, Queries]:
    """How often the true caption is closer than all others, and which questions were answered correctly.

    Question n is about the rows `images[n]` [1, or 2 for Winoground] of `image` [I, D]. Its captions are the
    rows `texts[n]` of `text` [T, D]: the true one first or, for two pictures, one for each. Ties count as
    errors. Besides the accuracy over all questions, the result has that of each category and their mean
    (SugarCrepe, Hsieh et al. 2023), or the mean over the relations or pairs of attributes that ARO counts
    (Yuksekgonul et al. 2023). For Winoground (Thrush et al. 2022) it has the text, image and group scores:
    both captions, both pictures, and all of these. Chance is 1 / 2, 1 / 5 for ARO's order, and 1 / 4, 1 / 4
    and 1 / 6.
    """
    if layout == "winoground":
        return _winoground(image, text, images, np.array(texts))
    correct = np.ones(len(texts), dtype=bool)
    true = np.array([options[0] for options in texts])
    for place in range(1, max(map(len, texts))):
        asked = np.array([number for number, options in enumerate(texts) if len(options) > place])
        false = np.array([texts[number][place] for number in asked])
        sides = image[images[asked, 0]], text[true[asked]], text[false]
        correct[asked] &= swap_accuracy(*sides).correct
    scores: Scores = {"composition_accuracy": float(correct.mean())}
    queries: Queries = {"composition_correct": correct, "composition_correct_image": images[:, 0]}
    if layout == "sugar_crepe":
        for category in dict.fromkeys(categories):
            chosen = np.array(categories) == category
            key = "composition_" + re.sub(r"\W+", "_", category)
            scores[f"{key}_accuracy"] = float(correct[chosen].mean())
            queries |= {f"{key}_correct": correct[chosen], f"{key}_correct_image": images[chosen, 0]}
    names, label = np.unique(categories if layout == "sugar_crepe" else groups, return_inverse=True)
    counted = np.ones(len(names), dtype=bool)
    if layout == "relation":
        counted = ~np.isin(names, sorted(UNCOUNTED))
    elif layout == "attribution":
        counted = np.bincount(label) >= FEWEST
    chosen = counted[label]
    if layout != "order" and chosen.any():
        results = per_class_results(correct[chosen], label[chosen])
        scores["composition_macro"] = float(results.mean())
        queries |= {"composition_macro_result": results, "composition_macro_image": images[chosen, 0]}
    return scores, queries


def _winoground(image: Matrix, text: Matrix, images: np.ndarray, texts: np.ndarray) -> tuple[Scores, Queries]:
    def both(own: Matrix, right: Matrix, rows: np.ndarray, options: np.ndarray) -> np.ndarray:
        """Whether each of the two `rows` of `own` is closer to its own option than to the other's."""
        first, second = (
            swap_accuracy(own[rows[:, side]], right[options[:, side]], right[options[:, 1 - side]]).correct
            for side in (0, 1)
        )
        return first & second

    results = {"text": both(image, text, images, texts), "image": both(text, image, texts, images)}
    results["group"] = results["text"] & results["image"]
    scores: Scores = {f"winoground_{name}_score": float(right.mean()) for name, right in results.items()}
    queries: Queries = {}
    for name, right in results.items():
        queries |= {
            f"winoground_{name}_correct": right,
            f"winoground_{name}_correct_image": images[:, 0],
        }
    return scores, queries
