"""Pictures decoded once: kept as uint8 at one size, so that an epoch reads them instead of decoding them."""

import errno
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any, Unpack

import numpy as np
import torch

from workbench.data.decode import BadSample
from workbench.data.pairs import Pairs
from workbench.files import sha256_of_strings
from workbench.models.transform import ImageTransform
from workbench.recipe import Recipe
from workbench.targets.cached import Share, StoreReader, cached
from workbench.targets.store import TargetStore
from workbench.targets.store_writer import Column

BATCH = 64  # pictures that are lost when a process is killed
SIZE_BYTES = 8  # behind a picture's pixels: the height and width that it came with
PACKAGES = ("torch", "torchvision", "pillow")
FORMAT = 1  # raise it with every change to what is kept


def decoded_pairs(recipe: Recipe, pairs: Pairs, **share: Unpack[Share]) -> Pairs:
    """The training pairs, read from pictures that were decoded before; as they are where the recipe's
    `data.decoded` is null.

    Every picture is kept squashed to a square of so many pixels a side, in the cache under a fingerprint of
    the pairs' ids, of the pictures' contents, and of what decodes; each process decodes with
    `data.workers` threads. Where crops vary, they are cut from the square: the same part of the picture,
    resized twice instead of once. Otherwise a picture gets its proportions back, but no more pixels than it
    had. Raises OSError with errno ENOSPC where the disk is too small.
    """
    size = recipe.data.decoded
    if size is None:
        return pairs
    fingerprint: dict[str, Any] = {
        "ids": sha256_of_strings(pairs.each_id()),
        "files": pairs.pictures_fingerprint,
        "pixels": size,
        "max_pixels": recipe.data.max_pixels,
        "format": FORMAT,
        "packages": {package: metadata.version(package) for package in PACKAGES},
    }
    squash = ImageTransform((size, size), resize_mode="squash")

    def record(row: int) -> np.ndarray | str:
        try:
            picture = pairs.image(row)
        except BadSample as error:
            return error.reason
        pixels = squash(picture).permute(1, 2, 0).contiguous().numpy()
        return np.concatenate([pixels.reshape(-1), np.array(picture.shape[1:], dtype="<i4").view(np.uint8)])

    def records(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        with ThreadPoolExecutor(max(1, recipe.data.workers)) as pool:
            results = dict(enumerate(pool.map(record, range(rows.start, rows.stop)), rows.start))
        bad = {row: result for row, result in results.items() if isinstance(result, str)}
        empty = np.zeros(3 * size**2 + SIZE_BYTES, dtype=np.uint8)
        return np.stack([empty if row in bad else result for row, result in results.items()]), bad

    column = Column((len(pairs), 3 * size**2 + SIZE_BYTES), "uint8", records)
    name = f"{pairs.name}-{pairs.split}-{size}px"
    try:
        store = cached(fingerprint, name, {"pictures": column}, batch=BATCH, label="decoded {}", **share)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = (
            f"data.decoded = {size}: the disk is too full for {len(pairs) * column.shape[1] / 1e9:,.2f} GB "
            "of pictures; what is finished is kept. Free some space and run the same again, point "
            "WORKBENCH_CACHE to another disk, or take fewer pixels, or null"
        )
        raise OSError(errno.ENOSPC, message, error.filename) from error
    varies = recipe.training.augmentation.crop_scale != (1.0, 1.0)
    return DecodedReader(store, size, squashed=varies).in_place_of_pictures(pairs)


class DecodedReader(StoreReader):
    """Reads pictures, uint8 [3, H, W]: the squares as they are stored, or, unless `squashed`, in each
    picture's own proportions."""

    def __init__(self, store: TargetStore, size: int, squashed: bool) -> None:
        super().__init__(store)
        self.size = size
        self.squashed = squashed

    def restore(self, record: np.ndarray) -> torch.Tensor:
        """The picture that a record stands for."""
        pixels = record[:-SIZE_BYTES].reshape(self.size, self.size, 3)
        # Seen from torch the channels of a pixel still lie together, which is what resizing is fastest on.
        picture = torch.from_numpy(pixels).permute(2, 0, 1)
        if self.squashed:
            return picture
        height, width = (int(side) for side in record[-SIZE_BYTES:].view("<i4"))
        share = min(1.0, self.size / min(height, width))
        own = max(1, round(height * share)), max(1, round(width * share))
        return ImageTransform(own, resize_mode="squash")(picture)
