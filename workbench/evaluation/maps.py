"""UMAP layouts of embeddings in two dimensions, computed once and cached."""

import hashlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.errors import SettingError
from workbench.files import atomic_write, cache_folder, sha256_of_json

FEWEST = 4  # the fewest embeddings for which UMAP's spectral initialisation works
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
    """Lay out `embeddings` in two dimensions with UMAP and the cosine distance.

    `identity` is JSON that identifies the embeddings (data, model, number). Layouts are stored under it and
    the settings: some are shipped, the others are in the cache, where the key also covers the embeddings.
    Plots therefore always show the same layout, which UMAP itself does not guarantee across machines. The
    first call compiles code for a minute or more. Raises SettingError for fewer than four embeddings, and for
    embeddings that contain NaN or infinity, or only zeros, which have no cosine distance.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or len(embeddings) < FEWEST:
        problem = f"UMAP needs [N, D] with N at least {FEWEST}"
        raise SettingError("embeddings", f"shape {embeddings.shape}", problem, "Give more embeddings.")
    broken = np.flatnonzero(~np.isfinite(embeddings).all(1) | ~embeddings.any(1))
    if len(broken):
        rows = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
        problem = f"{len(broken)} of {len(embeddings)} hold NaN, infinity, or only zeros (rows {rows})"
        raise SettingError("embeddings", f"shape {embeddings.shape}", problem, "Remove these rows.")
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
        # UMAP warns that a seed forces a single thread, and its libraries warn about their own internals.
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


def place_on_map(
    new: Float[np.ndarray, "m dim"],
    embeddings: Float[np.ndarray, "n dim"],
    positions: Float[np.ndarray, "n 2"],
    *,
    neighbours: int = 15,
) -> Float[np.ndarray, "m 2"]:
    """Where `new` embeddings lie on the map that `umap_map` made of `embeddings`.

    This is UMAP's `transform` without its last optimisation: the mean of the positions of the nearest
    embeddings, weighted by the fuzzy membership strengths (McInnes et al. 2018, section 3.1). A point
    therefore lies at the same place whether it is given alone or in a batch. Raises SettingError for fewer
    than four embeddings.
    """
    if len(embeddings) < FEWEST or len(embeddings) != len(positions):
        problem = f"a map needs at least {FEWEST} embeddings with one of the {len(positions)} positions each"
        raise SettingError("embeddings", f"shape {embeddings.shape}", problem, "Give those of the map.")
    if not len(new):
        return np.empty((0, 2), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import umap

        mapper = umap.UMAP(
            n_neighbors=min(neighbours, len(embeddings) - 1),
            metric="cosine",
            n_epochs=0,
            init=positions,
            random_state=0,
        ).fit(embeddings)
        mapper.embedding_ = np.asarray(positions, dtype=np.float32)
        return np.asarray(mapper.transform(new), dtype=np.float32)
