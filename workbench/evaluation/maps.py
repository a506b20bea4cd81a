"""UMAP: embeddings laid out in the plane, computed once, kept, and never computed again."""

import hashlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.errors import SettingError
from workbench.files import atomic_write, cache_folder, sha256_of_json

FEWEST = 4  # embeddings: UMAP's start takes more eigenvectors than fewer have
SHIPPED = Path(__file__).parents[1] / "assets" / "maps"


def umap_map(
    embeddings: Float[np.ndarray, "n dim"],
    identity: Mapping[str, Any],
    *,
    neighbours: int = 15,
    minimum_distance: float = 0.1,
    seed: int = 0,
    say: Callable[[str], object] | None = print,
) -> Float[np.ndarray, "n 2"]:
    """Positions of `embeddings` (cosine distances), by UMAP.

    `identity` is JSON that names what the embeddings are (data, model, how many). Maps are kept under it and
    these settings: some come with the workbench, the others are in the cache, under the embeddings as well.
    So a plot is of the same map every day, which UMAP itself does not guarantee from one machine to another.
    A first call compiles for a minute or more. Raises SettingError for fewer than four embeddings, and for
    some that hold NaN, infinity, or nothing but zeros, which have no cosine distance.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or len(embeddings) < FEWEST:
        problem = f"UMAP lays out [N, D] with N at least {FEWEST}"
        raise SettingError("embeddings", f"shape {embeddings.shape}", problem, "Take more of them.")
    broken = np.flatnonzero(~np.isfinite(embeddings).all(1) | ~embeddings.any(1))
    if len(broken):
        rows = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
        problem = f"{len(broken)} of {len(embeddings)} hold NaN, infinity, or zeros alone (rows {rows})"
        raise SettingError("embeddings", f"shape {embeddings.shape}", problem, "Leave these rows out.")
    key = {
        "identity": dict(identity),
        "count": len(embeddings),
        "neighbours": neighbours,
        "minimum_distance": minimum_distance,
        "seed": seed,
    }
    values = hashlib.sha256(np.round(embeddings, 4).astype(np.float32).tobytes()).hexdigest()
    cached = cache_folder("maps", f"{sha256_of_json({**key, 'embeddings': values})[:16]}.npy")
    for file in (SHIPPED / f"{sha256_of_json(key)[:16]}.npy", cached):
        if file.is_file():
            return np.load(file, allow_pickle=False).astype(np.float32)
    if say:
        say(f"laying out {len(embeddings):,} embeddings with UMAP; the first time takes a minute or more")
    with warnings.catch_warnings():
        # A seed forces one thread, as it says; and its own libraries' notes are not the reader's concern.
        warnings.simplefilter("ignore")
        import umap

        layout = umap.UMAP(
            n_neighbors=min(neighbours, len(embeddings) - 1),
            min_dist=minimum_distance,
            metric="cosine",
            random_state=seed,
        ).fit_transform(embeddings)
    positions = np.asarray(layout, dtype=np.float32)
    with atomic_write(cached) as stream:
        np.save(stream, positions)
    return positions
