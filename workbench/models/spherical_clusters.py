"""Deterministic spherical k-means of few rows, for many pictures at once."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

ROUNDS = 5


@torch.no_grad()
def spherical_clusters(
    rows: Float[Tensor, "batch rows dim"], mask: Bool[Tensor, "batch rows"], clusters: int
) -> Bool[Tensor, "batch {clusters} rows"]:
    """Assign each valid row to one of `clusters`, by spherical k-means within each element of the batch.

    It is deterministic. The first centroid is the row nearest to the mean, and each further centroid the row
    farthest from those before it. A cluster that has lost its rows restarts from the row that fits its own
    cluster worst. With fewer distinct rows than clusters, some clusters stay empty. Five rounds are enough
    for so few rows.
    """
    unit = F.normalize(rows.masked_fill(~mask.unsqueeze(-1), 0.0), dim=-1)
    batch = torch.arange(len(unit), device=unit.device)

    def pick(scores: Tensor) -> Tensor:
        """The valid row with the highest score, of each of the batch."""
        return unit[batch, scores.masked_fill(~mask, -torch.inf).argmax(1)]

    mean = unit.sum(1, keepdim=True)
    centroids = pick((unit * mean).sum(-1)).unsqueeze(1)
    while centroids.shape[1] < clusters:
        nearest = (unit @ centroids.transpose(1, 2)).amax(-1)
        centroids = torch.cat([centroids, pick(-nearest).unsqueeze(1)], dim=1)
    for _ in range(ROUNDS):
        cosines = unit @ centroids.transpose(1, 2)
        membership = F.one_hot(cosines.argmax(-1), clusters).bool() & mask.unsqueeze(-1)
        sums = membership.transpose(1, 2).to(unit.dtype) @ unit
        empty = ~membership.any(1)
        worst = pick(-cosines.amax(-1)).unsqueeze(1)
        centroids = F.normalize(torch.where(empty.unsqueeze(-1), worst, sums), dim=-1)
    cosines = unit @ centroids.transpose(1, 2)
    return (F.one_hot(cosines.argmax(-1), clusters).bool() & mask.unsqueeze(-1)).transpose(1, 2)
