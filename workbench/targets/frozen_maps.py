"""Training pairs whose pictures went through the student's frozen first layers once, ahead of training."""

from collections.abc import Callable
from importlib import metadata
from typing import Any, cast

import numpy as np
import torch

from workbench.data.decode import BadSample, Reason
from workbench.data.pairs import Pairs
from workbench.files import sha256_of_json
from workbench.models.dual_encoder import CPU_PORTION, DualEncoder, weights_digest
from workbench.models.frozen_layers import frozen_layers, frozen_maps
from workbench.recipe import Recipe
from workbench.targets.decoded_cache import file_states
from workbench.targets.image_text import ProgressLines, readable
from workbench.targets.store import TargetStore, store_folder
from workbench.targets.store_writer import Column, fill

PACKAGES = ("torch", "timm")


def mapped_pairs(
    recipe: Recipe,
    pairs: Pairs,
    student: DualEncoder,
    *,
    device: Any = "cpu",
    rank: int = 0,
    world: int = 1,
    say: Callable[[str], object] | None = print,
) -> Pairs:
    """The training pairs with feature maps [C, H, W] in place of pictures; as they are where the recipe's
    `student.cache_frozen` is false.

    Kept in the cache under a fingerprint of the frozen weights and of the pictures' files: computed now,
    continued where a killed process stopped, or opened when all is there. Raises SettingError where the
    frozen modules are not the tower's first layers.
    """
    if not recipe.student.cache_frozen:
        return pairs
    model = student.to(device).eval()
    size = model.transform.size
    shape = frozen_maps(model, torch.zeros(1, 3, *size, dtype=torch.uint8, device=device)).shape[1:]

    def records(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        values = np.zeros((rows.stop - rows.start, *shape), dtype=np.float32)
        pictures, bad = readable(pairs, rows)
        if pictures:
            ready = torch.stack([model.transform(picture) for picture in pictures.values()]).to(device)
            places = np.fromiter(pictures, dtype=np.int64) - rows.start
            parts = [frozen_maps(model, part) for part in ready.split(CPU_PORTION)]
            values[places] = torch.cat(parts).float().cpu().numpy()
        return values, bad

    fingerprint: dict[str, Any] = {
        "layers": weights_digest(
            {
                f"{place}.{name}": tensor
                for place, layer in enumerate(frozen_layers(model))
                for name, tensor in layer.state_dict().items()
            }
        ),
        "transform": sha256_of_json(model.config["preprocess_cfg"]),
        "data": pairs.fingerprint,
        "files": sha256_of_json(file_states(pairs.files)),
        "packages": {package: metadata.version(package) for package in PACKAGES},
    }
    store = fill(
        store_folder(fingerprint, f"{pairs.name}-{pairs.split}-frozen"),
        fingerprint,
        {"maps": Column((len(pairs), *shape), "float32", records)},
        batch=recipe.targets.batch,
        rank=rank,
        world=world,
        report=ProgressLines(say, "frozen layers'") if say and rank == 0 else None,
    )
    return Pairs(
        pairs.table,
        MapReader(store),
        name=pairs.name,
        split=pairs.split,
        rejected=pairs.rejected,
        max_failed=pairs.max_failed,
    )


class MapReader:
    """Reads the feature maps of a row, float32 [C, H, W]; raises BadSample with the reason of a picture that
    could not be read. Picklable."""

    def __init__(self, store: TargetStore) -> None:
        self.store = store

    def __call__(self, row: int) -> torch.Tensor:
        reason = self.store.bad_rows["maps"].get(row)
        if reason is not None:
            raise BadSample(cast(Reason, reason))
        return torch.from_numpy(np.array(self.store.rows("maps", row)))
