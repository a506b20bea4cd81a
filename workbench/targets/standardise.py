"""Embeddings brought to mean 0 and deviation 1, by what the training captions alone tell."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from workbench.errors import damaged_file
from workbench.files import atomic_write, read_arrays

ROWS = 8192  # at a time, so that memory-mapped embeddings need not fit into memory
CLIP = 4.0


class Standardiser:
    """What `fit` found: callable on embeddings [n, dim], gives float32 [n, out dim], clipped to +-4.

    Without PCA the embeddings minus their mean, over one deviation for all dimensions: directions keep their
    relative size. With it they are turned to the principal axes, each of variance 1 (whitening).
    """

    def __init__(self, mean: np.ndarray, axes: np.ndarray | None, deviation: float) -> None:
        self.mean = mean
        self.axes = axes
        self.deviation = deviation

    @classmethod
    def fit(cls, embeddings: np.ndarray, components: int | None = None) -> "Standardiser":
        """Mean and deviation of `embeddings` [n, dim], or their first `components` principal axes.

        Sums are float64 and rows are read in portions. Raises ValueError where nothing varies, where a value
        is not finite, or where there are fewer axes than asked for.
        """
        mean, covariance = moments(embeddings)
        variance = float(np.trace(covariance)) / len(covariance)
        if not variance > 0:
            raise ValueError(
                f"all {len(embeddings)} embeddings are equal: there is nothing to learn from them"
            )
        if components is None:
            return cls(mean, None, float(np.sqrt(variance)))
        values, vectors = np.linalg.eigh(covariance)
        varying = int((values > values[-1] * 1e-10).sum())
        if not 1 <= components <= varying:
            raise ValueError(f"components = {components}: the embeddings vary in {varying} directions")
        chosen = slice(None, -components - 1, -1)
        return cls(mean, vectors[:, chosen] / np.sqrt(values[chosen]), 1.0)

    def __call__(self, embeddings: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n out"]:
        """Standardised embeddings, float32."""
        centred = np.asarray(embeddings, dtype=np.float64) - self.mean
        turned = centred if self.axes is None else centred @ self.axes
        return np.clip(turned / self.deviation, -CLIP, CLIP).astype(np.float32)

    def save(self, path: str | Path) -> None:
        """Write it as .npz, whole or not at all."""
        axes = {} if self.axes is None else {"axes": self.axes}
        with atomic_write(Path(path)) as stream:
            np.savez(stream, mean=self.mean, deviation=np.float64(self.deviation), **axes)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> "Standardiser":
        """What `save` wrote; SettingError where the file is damaged."""
        try:
            parts = read_arrays(Path(path))
            return cls(parts["mean"], parts.get("axes"), float(parts["deviation"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise damaged_file("run", path, error, "Delete it: it is fitted again.") from None


def moments(embeddings: np.ndarray) -> tuple[Float[np.ndarray, " dim"], Float[np.ndarray, "dim dim"]]:
    """Mean and covariance of the rows, float64, the rows read in portions; ValueError for rows not finite."""
    if len(embeddings) == 0:
        raise ValueError("there are no embeddings")
    # Taking the first row away keeps far-off means from swallowing the digits of the differences.
    origin = np.asarray(embeddings[0], dtype=np.float64)
    total, products = np.zeros_like(origin), np.zeros((len(origin), len(origin)))
    for start in range(0, len(embeddings), ROWS):
        rows = np.asarray(embeddings[start : start + ROWS], dtype=np.float64) - origin
        if not np.isfinite(rows).all():
            raise ValueError(f"embeddings {start} to {start + len(rows)} hold values that are not finite")
        total += rows.sum(0)
        products += rows.T @ rows
    mean = total / len(embeddings)
    return mean + origin, products / len(embeddings) - np.outer(mean, mean)
