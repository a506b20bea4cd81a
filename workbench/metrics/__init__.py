"""The metrics of evaluations: a record for each, by the name under which it is stored. Imports no torch.

To add a metric, add a `_Family`. Labels, percentages, paired intervals and headline columns derive from it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Metric:
    """A metric as reports, figures and tables know it.

    A `share` lies in [0, 1] and is shown in per cent. `higher_is_better` is None if neither direction is
    better. `results` and `images` are the keys under which evaluations store the results of single queries
    and the image of every query; without `images`, query n belongs to image n. `headline` is the position
    among the columns of a short table, None if it is not among them. `known` is false for a name without a
    family.
    """

    name: str
    label: str
    share: bool = True
    higher_is_better: bool | None = True
    results: str | None = None
    images: str | None = None
    cutoff: int | None = None
    reciprocal: bool = False
    headline: int | None = None
    known: bool = True

    def of_queries(self, stored: Any) -> Any:
        """The results of single queries, whose mean is the metric, from the array stored under `results`."""
        if self.cutoff is not None:
            return stored <= self.cutoff  # the stored values are ranks
        return 1 / stored if self.reciprocal else stored


class _Family(NamedTuple):
    """Metrics whose names match `pattern`.

    `label` and `results` may refer to groups of the pattern. A group named `cutoff` sets that field of the
    record, and `facts` sets further ones.
    """

    pattern: str
    label: str = r"\g<0>"
    results: str | None = r"\g<0>_result"
    facts: dict[str, Any] = {}  # noqa: RUF012  a NamedTuple's default


def _families() -> Iterator[_Family]:
    for position, (direction, ranks, images) in enumerate(
        (("text_to_image", "t2i_ranks", "image_of_text"), ("image_to_text", "i2t_ranks", None))
    ):
        yield _Family(
            rf"{direction}_r(?P<cutoff>1)",
            rf"{direction} R@\1",
            ranks,
            {"images": images, "headline": position},
        )
        yield _Family(rf"{direction}_r(?P<cutoff>\d+)", rf"{direction} R@\1", ranks, {"images": images})
        yield _Family(f"{direction}_mrr", f"{direction} MRR", ranks, {"images": images, "reciprocal": True})
        yield _Family(f"{direction}_map", f"{direction} mAP", None)
        count = {"share": False, "higher_is_better": False}
        yield _Family(f"{direction}_median_rank", results=None, facts=count)
    zero_shot = "(zero_shot(?:_names|_categories)?)"
    yield _Family(f"{zero_shot}_top1", r"\1 top-1", r"\1_correct", {"headline": 2})
    yield _Family(f"{zero_shot}_top5", r"\1 top-5")
    yield _Family(f"{zero_shot}_mean_per_class")
    yield _Family("composition_macro", "composition, mean over categories")
    yield _Family(r"(composition(?:_\w+)?)_accuracy", results=r"\1_correct")
    yield _Family("(winoground_(?:text|image|group))_score", results=r"\1_correct")
    yield _Family("(linear_probe)_accuracy", results=r"\1_correct")
    yield _Family("(knn)_accuracy", "k-NN accuracy", r"\1_correct")
    yield _Family("(swap)_accuracy", "swapped captions, accuracy", r"\1_correct")
    yield _Family("(question_(?:objects|sizes|backgrounds|relations))_accuracy", results=r"\1_correct")
    yield _Family(r"search_precision_at_\d+")
    yield _Family("(class_name|attributes_only)_(seen_|unseen_|zero_shot_)?mean_per_class")
    yield _Family("(class_name|attributes_only)_harmonic_mean", results=None)
    yield _Family("(attribute_prediction)_map", r"\1 mAP")
    yield _Family("attribute_prediction_chance", results=None, facts={"higher_is_better": None})
    left_out = {"share": False, "higher_is_better": None}
    yield _Family("attribute_prediction_left_out", results=None, facts=left_out)
    yield _Family("decoder_exact_match", results=None)
    yield _Family("exact_match(_raw)?")
    yield _Family("(captioning_)?token_f1", r"\1token F1")
    yield _Family("captioning_(object|attribute)_recall")


_UNKNOWN = _Family(".*", facts={"share": False, "higher_is_better": None, "known": False})


@cache
def metric(name: str) -> Metric:
    """The record of the metric stored as `name`. It is not `known` if no family has the name."""
    for family in (*_families(), _UNKNOWN):
        if match := re.fullmatch(family.pattern, name, re.DOTALL):
            facts: dict[str, Any] = {group: int(value) for group, value in match.groupdict().items()}
            if family.results:
                key = match.expand(family.results)
                facts |= {"results": key, "images": f"{key.removesuffix('_result')}_image"}
            return Metric(name, _in_words(match.expand(family.label)), **{**facts, **family.facts})
    raise AssertionError(name)  # the last family matches every name


def _in_words(label: str) -> str:
    for words in ("text_to_image", "image_to_text", "zero_shot"):
        label = label.replace(words, words.replace("_", "-"))
    return label.replace("_", " ")
