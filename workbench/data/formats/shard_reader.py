"""The index of tar shards, and a reader for the indexed pictures in files, behind URLs and in cached
copies."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from workbench.data.contents import digests_by_version, digests_in_files
from workbench.data.decode import BadSample, decode_image
from workbench.data.index import open_index
from workbench.data.remote import FileState, cached_copy, is_remote, read_range
from workbench.data.source import Rejected

SCHEMA = pa.schema(
    {
        "id": pa.large_string(),
        "captions": pa.list_(pa.large_string()),
        "draw": pa.uint64(),
        "shard": pa.int32(),
        "offset": pa.int64(),
        "size": pa.int64(),
    }
)


@dataclass
class ShardReader:
    """Reads the image of a row at its offset in a shard. Every process opens the index itself. `states` are
    the states of remote shards, and `shard_cache` is how many gigabytes of them may be cached."""

    index: Path
    shards: list[str]
    max_pixels: int
    states: list[FileState] | None = None
    shard_cache: float | None = None
    _places: pa.Table | None = field(default=None, repr=False, compare=False)

    def __call__(self, row: int) -> torch.Tensor:
        shard, offset, size = (column[row].as_py() for column in self._opened().columns)
        try:
            data = self._bytes(shard, offset, size)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            raise BadSample("missing file" if missing else "unreadable file") from error
        if len(data) < size:
            raise BadSample("truncated shard")
        return decode_image(data, self.max_pixels)

    def _bytes(self, shard: int, offset: int, size: int) -> bytes:
        path: str | Path = self.shards[shard]
        if self.states is not None and self.shard_cache:
            path = cached_copy(self.states[shard], self.shard_cache) or path
        if is_remote(path):
            return read_range(str(path), offset, size)
        with open(path, "rb", buffering=0) as stream:
            stream.seek(offset)
            return stream.read(size)

    def files(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """The shards that contain these rows, without repetition."""
        return [self.shards[shard] for shard in np.unique(self.shard_of(rows))]

    def shard_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The index of the shard that contains each of these rows."""
        return self._opened()["shard"].to_numpy()[rows].astype(np.int64)

    def digests(self, contents: bool) -> pa.Array:
        """A digest of every row's picture: of its bytes if `contents` is true and the shards are local files,
        otherwise of the shard's version and the offset in it."""
        shard, offset, size = (column.to_numpy() for column in self._opened().columns)
        if self.states is not None:
            return digests_by_version([json.dumps(state) for state in self.states], shard, offset, size)
        return digests_in_files(self.shards, shard, offset, size, contents)

    def _opened(self) -> pa.Table:
        if self._places is None:
            self._places = read_index(self.index)[0].select(["shard", "offset", "size"])
        return self._places

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_places": None}


def read_index(path: Path) -> tuple[pa.Table, Rejected, Rejected]:
    """The index in a file, one record batch a shard, and the lost and skipped pairs that its metadata
    count."""
    lost, skipped, batches = Rejected(), Rejected(), []
    reader = open_index(path)
    for number in range(reader.num_record_batches):
        batch, metadata = reader.get_batch_with_custom_metadata(number)
        batches.append(batch)
        lost.absorb(Rejected(*json.loads(metadata[b"lost"])))
        skipped.absorb(Rejected(*json.loads(metadata[b"skipped"])))
    return pa.Table.from_batches(batches, schema=SCHEMA), lost, skipped


def indexed_pairs(index: Path) -> pa.Table:
    """The ids and captions in an index."""
    return read_index(index)[0].select(["id", "captions"])
