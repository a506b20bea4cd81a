"""Training pairs whose pictures went through the student's frozen first layers once, ahead of training."""

from importlib import metadata
from typing import Any, Unpack

import numpy as np
import torch

from workbench.data.pairs import Pairs
from workbench.files import sha256_of_json
from workbench.models.dual_encoder import CPU_PORTION, DualEncoder, weights_digest
from workbench.models.frozen_layers import frozen_layers, frozen_maps
from workbench.recipe import Recipe
from workbench.targets.cached import Share, StoreReader, cached, readable
from workbench.targets.store_writer import Column

PACKAGES = ("torch", "timm")


def mapped_pairs(
    recipe: Recipe, pairs: Pairs, student: DualEncoder, *, device: Any = "cpu", **share: Unpack[Share]
) -> Pairs:
    """The training pairs with feature maps [C, H, W] in place of pictures; as they are where the recipe's
    `student.cache_frozen` is false.

    Kept in the cache under a fingerprint of the frozen weights and of the pictures' contents. Raises
    SettingError where the frozen modules are not the tower's first layers.
    """
    if not recipe.student.cache_frozen:
        return pairs
    model = student.to(device).eval()
    size = model.transform.size
    shape = frozen_maps(model, torch.zeros(1, 3, *size, dtype=torch.uint8, device=device)).shape[1:]

    def maps(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        values = np.zeros((rows.stop - rows.start, *shape), dtype=np.float32)
        wanted, workers = range(rows.start, rows.stop), recipe.data.workers
        pictures, bad = readable(pairs, wanted, workers, lambda row, picture: model.transform(picture))
        if pictures:
            images = torch.stack(list(pictures.values())).to(device)
            parts = [frozen_maps(model, part) for part in images.split(CPU_PORTION)]
            values[np.fromiter(pictures, dtype=np.int64) - rows.start] = (
                torch.cat(parts).float().cpu().numpy()
            )
        return values, bad

    weights = {
        f"{position}.{name}": tensor
        for position, layer in enumerate(frozen_layers(model))
        for name, tensor in layer.state_dict().items()
    }
    fingerprint: dict[str, Any] = {
        "layers": weights_digest(weights),
        "transform": sha256_of_json(model.config["preprocess_cfg"]),
        "data": pairs.fingerprint,
        "files": pairs.pictures_fingerprint,
        "packages": {package: metadata.version(package) for package in PACKAGES},
    }
    store = cached(
        fingerprint,
        f"{pairs.name}-{pairs.split}-frozen",
        {"maps": Column((len(pairs), *shape), "float32", maps)},
        batch=recipe.targets.batch,
        label="frozen layers' {} targets",
        **share,
    )
    return StoreReader(store).in_place_of_pictures(pairs)
