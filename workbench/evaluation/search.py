"""Search a split's pictures by words or by a picture: what a trained student is for, and how well it does."""

from collections import Counter

import numpy as np
import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

from workbench.data.concepts import article, concepts
from workbench.data.decode import decode_image
from workbench.data.pairs import Pairs
from workbench.evaluation.encode import encode_images, encode_texts
from workbench.models.dual_encoder import DualEncoder

Hit = tuple[int, float]  # row of the picture, cosine similarity

THINGS = 40  # of those a split shows, the most frequent are searched for
BEST = 6  # pictures of an answer that are judged


class PictureIndex:
    """A split's pictures, embedded once; every query is one matrix product."""

    def __init__(self, model: DualEncoder, pairs: Pairs) -> None:
        self.model = model
        self.pairs = pairs
        self.image, self.rows, _ = encode_images(model, pairs)

    def words(self, query: str, best: int = 12) -> list[Hit]:
        """The pictures that fit the words best, best first, as `word_scores` ranks them."""
        return self._nearest(encode_texts(self.model, [query])[0], best, average_query(self.model))

    @torch.no_grad()
    def picture(self, data: bytes, best: int = 12) -> list[Hit]:
        """The pictures most like one's own, given as the bytes of an image file; raises BadSample if it
        cannot be read."""
        ready = self.model.transform(decode_image(data))[None].to(self.model.mean.device)
        query = torch.nn.functional.normalize(self.model.encode_image(ready).float().cpu(), dim=-1)[0]
        return self._nearest(query, best, torch.zeros_like(query))

    def _nearest(self, query: Tensor, best: int, average: Tensor) -> list[Hit]:
        order = word_scores(self.image, query, average).topk(min(best, len(self.image))).indices
        cosines = self.image[order] @ query
        return [
            (int(self.rows[at]), float(score)) for score, at in zip(cosines, np.asarray(order), strict=True)
        ]


def average_query(model: DualEncoder) -> Tensor:
    """The mean embedding [D] of a thousand names of things, ImageNet's."""
    return encode_texts(model, [f"{article(name)} {name}" for name in IMAGENET_CLASSNAMES]).mean(0)


def word_scores(image: Tensor, text: Tensor, average: Tensor) -> Tensor:
    """How much better each picture fits the words than it fits any thing, [queries, pictures].

    Some pictures are near to every name; their cosine to the `average` query is taken off, which ranks by
    what is special to the words. A plain form of querybank normalisation (Bogolin et al. 2022, arXiv
    2112.12777).
    """
    return (text - average) @ image.T


def search_precision(
    model: DualEncoder,
    pairs: Pairs,
    image: Tensor,
    rows: np.ndarray,
    things: int = THINGS,
    best: int = BEST,
) -> tuple[np.ndarray, list[str]]:
    """For each of the `things` most frequent objects of scenes, the share of the `best` pictures found by "a
    THING" that show it; with their names.

    `image` [I, D] are the unit embeddings of the pictures in `rows` [I] of `pairs`. Empty where fewer things
    are shown by twice as many pictures as are found, so that chance leaves something to miss.
    """
    objects = [pairs.table["objects"][int(row)].as_py() for row in rows]
    counts = Counter(name for names in objects for name in set(names))
    names = sorted(counts, key=lambda name: (-counts[name], name))[:things]
    if len(names) < things or counts[names[-1]] < 2 * best:
        return np.empty(0), []
    phrases = {concept.name: concept.phrase for concept in concepts()}
    text = encode_texts(model, [phrases[name] for name in names])
    found = word_scores(image, text, average_query(model)).topk(best).indices
    shown = [[name in objects[int(at)] for at in row] for name, row in zip(names, found, strict=True)]
    return np.mean(shown, axis=1), names
