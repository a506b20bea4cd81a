"""Further retrieval sets of a recipe, such as COCO, COCO in five folds, and Flickr30k."""

import glob
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.data.discovery import find_files
from workbench.data.load import WHOLE, available_splits, load_pairs
from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.evaluation.encode import Embedded
from workbench.evaluation.retrieval.metrics import Direction, retrieval_folds, retrieval_metrics
from workbench.recipe import Recipe

FOLDS = {"coco-1k": 5}  # prefix -> folds of the pictures: COCO-1K is the mean over five folds of COCO's 5,000
_PREFIX = re.compile(rf"({'|'.join(FOLDS)}):(.+)")
_GIVEN = ("image_column", "caption_column", "max_failed", "max_pixels", "scenes", "image_size")


class RetrievalSet(NamedTuple):
    """An entry of `evaluation.retrieval`, its parts, and the number of folds that are averaged."""

    entry: str
    source: str
    image_folder: str | None
    folds: int

    def open(self, recipe: Recipe) -> Pairs:
        """Load the split `test`, otherwise `val`, otherwise all pairs. Raises SettingError on failure."""
        given = recipe.data.options(train=False)
        options: dict[str, Any] = {name: given[name] for name in _GIVEN}
        options["image_folder"] = self.image_folder
        try:
            splits = available_splits(self.source, by_hash=False, **options)
            usable = [split for split in ("test", "val", WHOLE) if split in splits]
            if len(splits) > 1 and not usable:
                problem = f"it has the splits {', '.join(splits)}, and none called test or val"
                raise SettingError("data.source", self.source, problem, "Give a source with one of these.")
            pairs = load_pairs(self.source, (usable or splits)[0], **options)
        except SettingError as error:
            problem = f"{error.setting} = {error.value!r}: {error.problem}"
            raise SettingError("evaluation.retrieval", self.entry, problem, error.remedy) from error
        if pairs.split == WHOLE and os.path.abspath(self.source) == os.path.abspath(recipe.data.source):
            problem = "the recipe trains on this source, which has no splits of its own"
            remedy = "Remove it; its test split is evaluated anyway."
            raise SettingError("evaluation.retrieval", self.entry, problem, remedy)
        if len(pairs) < self.folds:
            problem = f"it has {len(pairs)} pictures for {self.folds} folds"
            raise SettingError("evaluation.retrieval", self.entry, problem, "Remove the prefix.")
        return pairs


def retrieval_sets(recipe: Recipe, taken: Collection[str] = ()) -> dict[str, RetrievalSet]:
    """The entries of `evaluation.retrieval` by name.

    The name is that of the file or folder without Karpathy's `dataset_`; with five folds it ends in -1k.
    Raises SettingError if a source does not exist, and if a name occurs twice or is already `taken`.
    """
    sets: dict[str, RetrievalSet] = {}
    for entry in recipe.evaluation.retrieval:
        prefix = _PREFIX.fullmatch(entry)
        kind, rest = prefix.groups() if prefix else ("", entry)
        source, at, folder = rest, "", ""
        if not os.path.exists(os.path.expanduser(rest)):  # a file may have an @ in its name
            source, at, folder = rest.partition("@")
        if source != "scenes":
            try:
                find_files(source)
            except SettingError as error:
                raise SettingError("evaluation.retrieval", entry, error.problem, error.remedy) from error
        name = _name(source)
        if kind:
            name = kind if name == "coco" else f"{name}-1k"
        if name in sets or name in taken:
            problem = f"its results would be called {name!r}, like those of another set or split"
            raise SettingError("evaluation.retrieval", entry, problem, "Give its file another name.")
        sets[name] = RetrievalSet(entry, source, folder if at else None, FOLDS.get(kind, 1))
    return sets


def _name(source: str) -> str:
    """The name for results of a source: that of its file or folder, or the part before a glob pattern."""
    plain = re.split(r"[*?\[{]", source)[0] if glob.has_magic(source) or "{" in source else source
    path = Path(plain).expanduser().resolve()
    stem = path.name if path.is_dir() else path.name.partition(".")[0]
    return re.sub(r"[^\w.-]+", "-", stem.removeprefix("dataset_")).strip("-._") or "retrieval"


def retrieval_scores(embedded: Embedded, folds: int = 1) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The scores of both directions, averaged over `folds`, and the rank of every query.

    `t2i_ranks_weight` and `i2t_ranks_weight` make the mean over all queries equal to the mean of the folds.
    """
    sides = embedded.image, embedded.text, embedded.image_of_text
    retrieval = retrieval_metrics(*sides) if folds == 1 else retrieval_folds(*sides, folds)
    scores: dict[str, float] = {}
    queries = {"image_of_text": embedded.image_of_text}
    for direction, short, owner in (
        ("text_to_image", "t2i", embedded.image_of_text),
        ("image_to_text", "i2t", np.arange(len(embedded.image))),
    ):
        side: Direction = getattr(retrieval, direction)
        scores |= {f"{direction}_r{k}": value for k, value in side.recall.items()}
        scores |= {f"{direction}_{name}": getattr(side, name) for name in ("mrr", "map", "median_rank")}
        order = np.argsort(side.queries)  # folds of consecutive pictures may have their captions out of order
        queries[f"{short}_ranks"] = side.ranks[order]
        if folds > 1:
            ends = np.cumsum([len(fold) for fold in np.array_split(np.arange(len(embedded.image)), folds)])
            fold_of = np.searchsorted(ends, owner[side.queries[order]], side="right")
            sizes = np.bincount(fold_of, minlength=folds)
            queries[f"{short}_ranks_weight"] = len(fold_of) / folds / sizes[fold_of]
    return scores, queries
