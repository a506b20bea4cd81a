"""UMAP layouts of embeddings in two dimensions, computed once and cached."""

import hashlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from workbench.errors import SettingError
from workbench.files import atomic_write, cache_folder, sha256_of_json
from workbench.targets.clusterers import unit

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
    threads = torch.get_num_threads()
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
    # Numba sets OpenMP to one thread a core, for torch too and whatever OMP_NUM_THREADS says. On a busy
    # machine they wait for each other for most of the time.
    torch.set_num_threads(threads)
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

    This is where UMAP's `transform` starts, without its optimisation: the mean of the positions of the
    nearest embeddings by the cosine, weighted by the membership strengths exp(-distance / sigma), with a
    sigma for each point at which those of all but the nearest sum to log2(neighbours) (McInnes et al. 2018,
    section 3.1). A point therefore lies at the same place whether it is given alone or in a batch. Raises
    SettingError for fewer than four embeddings.
    """
    if len(embeddings) < FEWEST or len(embeddings) != len(positions):
        problem = f"a map needs at least {FEWEST} embeddings with one of the {len(positions)} positions each"
        raise SettingError("embeddings", f"shape {embeddings.shape}", problem, "Give those of the map.")
    neighbours = min(neighbours, len(embeddings) - 1)
    placed = np.empty((len(new), 2), dtype=np.float32)
    known = unit(np.asarray(embeddings))
    for row, point in enumerate(unit(np.asarray(new))):
        distances = np.maximum(1 - known @ point, 0)
        nearest = np.argpartition(distances, neighbours)[:neighbours]
        strengths = membership_strengths(np.sort(distances[nearest]))
        order = nearest[np.argsort(distances[nearest])]
        placed[row] = strengths @ positions[order] / strengths.sum()
    return placed


def membership_strengths(distances: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """UMAP's strengths of a new point's nearest neighbours, from their ascending distances."""
    low, high, target = 0.0, np.inf, np.log2(len(distances))
    sigma = 1.0
    for _ in range(64):
        reached = np.exp(-distances[1:] / sigma).sum()
        low, high = (low, sigma) if reached > target else (sigma, high)
        sigma = 2 * sigma if high == np.inf else (low + high) / 2
    return np.exp(-distances / max(sigma, 1e-3 * float(distances.mean()), 1e-12))
