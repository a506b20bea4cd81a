"""Searches the pictures of a split by text or by a picture, and measures the precision of the search."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

from workbench.data.decode import decode_image
from workbench.data.pairs import Pairs
from workbench.data.scenes.catalogue import article, concepts
from workbench.evaluation.encode import encode_images, encode_texts
from workbench.models.dual_encoder import DualEncoder

Hit = tuple[int, float]  # row of the picture, score: the cosine, for words minus the picture's hubness

THINGS = 40  # the number of most frequent objects that are searched for
BEST = 6  # the number of evaluated results per search


class PictureIndex:
    """The embedded pictures of a split, for searches with one matrix product each."""

    def __init__(self, model: DualEncoder, pairs: Pairs) -> None:
        self.model = model
        self.pairs = pairs
        self.image, self.rows, _ = encode_images(model, pairs)
        self.hubness = hubness(model, pairs, self.image)

    def words(self, query: str, best: int = 12) -> list[Hit]:
        """The pictures that match the text best, ranked by cosine minus `hubness`."""
        return self._nearest(encode_texts(self.model, [query])[0], best, self.hubness)

    def answers(self, queries: Sequence[str], best: int = 12) -> np.ndarray:
        """The rows of the pictures that fit each of the queries best, best first, [Q, best]."""
        scores = encode_texts(self.model, queries) @ self.image.T - self.hubness
        return self.rows[scores.topk(min(best, len(self.image))).indices.numpy()]

    @torch.no_grad()
    def picture(self, data: bytes, best: int = 12) -> list[Hit]:
        """The pictures most similar to an image file, given as bytes. BadSample if it is unreadable."""
        ready = self.model.transform(decode_image(data))[None].to(self.model.mean.device)
        query = torch.nn.functional.normalize(self.model.encode_image(ready).float().cpu(), dim=-1)[0]
        return self._nearest(query, best, torch.zeros(len(self.image)))

    def _nearest(self, query: Tensor, best: int, hubness: Tensor) -> list[Hit]:
        scores, order = (self.image @ query - hubness).topk(min(best, len(self.image)))
        return [(int(self.rows[at]), float(score)) for score, at in zip(scores, order.tolist(), strict=True)]


def hubness(model: DualEncoder, pairs: Pairs, image: Tensor) -> Tensor:
    """The soft maximum of each picture's cosines [I] to a bank of object names, at the model's scale.

    Some pictures are close to every name and would be found by every search. The names are the objects of
    scenes, or the classes of ImageNet for other data. This is querybank normalisation with the inverted
    softmax (Bogolin et al. 2022, arXiv 2112.12777).
    """
    if "objects" in pairs.table.column_names:
        bank = [concept.phrase for concept in concepts() if not concept.held_out]
    else:
        bank = [f"{article(name)} {name}" for name in IMAGENET_CLASSNAMES]
    scale = float(model.scale.detach())
    return torch.logsumexp(scale * image @ encode_texts(model, bank).T, dim=1) / scale


def search_precision(
    model: DualEncoder,
    pairs: Pairs,
    image: Tensor,
    rows: np.ndarray,
    things: int = THINGS,
    best: int = BEST,
) -> tuple[np.ndarray, list[str]]:
    """The precision at `best` of a search for each of the `things` most frequent objects, and their names.

    `image` [I, D] are the unit embeddings of the pictures in `rows` [I] of `pairs`. Both are empty if fewer
    than `things` objects occur in at least 2 x `best` pictures.
    """
    objects = [pairs.table["objects"][int(row)].as_py() for row in rows]
    counts = Counter(name for names in objects for name in set(names))
    names = sorted(counts, key=lambda name: (-counts[name], name))[:things]
    if len(names) < things or counts[names[-1]] < 2 * best:
        return np.empty(0), []
    phrases = {concept.name: concept.phrase for concept in concepts()}
    text = encode_texts(model, [phrases[name] for name in names])
    best_images = (text @ image.T - hubness(model, pairs, image)).topk(best).indices
    shown = [[name in objects[int(at)] for at in row] for name, row in zip(names, best_images, strict=True)]
    return np.mean(shown, axis=1), names
