"""Search a split's pictures by words or by a picture: what a trained student is for."""

import numpy as np
import torch
from torch import Tensor

from workbench.data.decode import decode_image
from workbench.data.pairs import Pairs
from workbench.evaluation.encode import encode_images, encode_texts
from workbench.models.dual_encoder import DualEncoder

Hit = tuple[int, float]  # row of the picture, cosine similarity


class PictureIndex:
    """A split's pictures, embedded once; every query is one matrix product."""

    def __init__(self, model: DualEncoder, pairs: Pairs) -> None:
        self.model = model
        self.pairs = pairs
        self.image, self.rows, _ = encode_images(model, pairs)

    def words(self, query: str, best: int = 12) -> list[Hit]:
        """The pictures that fit the words best, best first."""
        return self._nearest(encode_texts(self.model, [query])[0], best)

    @torch.no_grad()
    def picture(self, data: bytes, best: int = 12) -> list[Hit]:
        """The pictures most like one's own, given as the bytes of an image file; raises BadSample if it
        cannot be read."""
        ready = self.model.transform(decode_image(data))[None].to(self.model.mean.device)
        return self._nearest(
            torch.nn.functional.normalize(self.model.encode_image(ready).float().cpu(), dim=-1)[0], best
        )

    def _nearest(self, query: Tensor, best: int) -> list[Hit]:
        scores, order = (self.image @ query).topk(min(best, len(self.image)))
        return [
            (int(self.rows[at]), float(score)) for score, at in zip(scores, np.asarray(order), strict=True)
        ]
