"""Search a split's pictures by words or by a picture: what a trained student is for, and how well it does."""

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

Hit = tuple[int, float]  # row of the picture, score that it was ranked by

THINGS = 40  # of those a split shows, the most frequent are searched for
BEST = 6  # pictures of an answer that are judged


class PictureIndex:
    """A split's pictures, embedded once; every query is one matrix product."""

    def __init__(self, model: DualEncoder, pairs: Pairs) -> None:
        self.model = model
        self.pairs = pairs
        self.image, self.rows, _ = encode_images(model, pairs)
        self.hubness = hubness(model, pairs, self.image)

    def words(self, query: str, best: int = 12) -> list[Hit]:
        """The pictures that fit the words best, best first: by cosine less `hubness`."""
        return self._nearest(encode_texts(self.model, [query])[0], best, self.hubness)

    def answers(self, queries: Sequence[str], best: int = 12) -> np.ndarray:
        """The rows of the pictures that fit each of the queries best, best first, [Q, best]."""
        scores = encode_texts(self.model, queries) @ self.image.T - self.hubness
        return self.rows[scores.topk(min(best, len(self.image))).indices.numpy()]

    @torch.no_grad()
    def picture(self, data: bytes, best: int = 12) -> list[Hit]:
        """The pictures most like one's own, given as the bytes of an image file; raises BadSample if it
        cannot be read."""
        ready = self.model.transform(decode_image(data))[None].to(self.model.mean.device)
        query = torch.nn.functional.normalize(self.model.encode_image(ready).float().cpu(), dim=-1)[0]
        return self._nearest(query, best, torch.zeros(len(self.image)))

    def _nearest(self, query: Tensor, best: int, hubness: Tensor) -> list[Hit]:
        scores, order = (self.image @ query - hubness).topk(min(best, len(self.image)))
        return [(int(self.rows[at]), float(score)) for score, at in zip(scores, order.tolist(), strict=True)]


def hubness(model: DualEncoder, pairs: Pairs, image: Tensor) -> Tensor:
    """How near each picture [I] is to names of things in general: a soft maximum of cosines, at the model's
    own scale.

    Some pictures are near to every name, and would be found by all. The names are those that scenes teach,
    else ImageNet's. Querybank normalisation with the inverted softmax (Bogolin et al. 2022, arXiv
    2112.12777).
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
    best_images = (text @ image.T - hubness(model, pairs, image)).topk(best).indices
    shown = [[name in objects[int(at)] for at in row] for name, row in zip(names, best_images, strict=True)]
    return np.mean(shown, axis=1), names
