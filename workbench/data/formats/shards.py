"""Opens tar shards as img2dataset writes them: read in place at random, by an index made once."""

import json
import os
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from tqdm import tqdm

from workbench.data.decode import BadSample, Reason, decode_image
from workbench.data.source import LARGEST_IMAGE, LARGEST_TEXT, Opened, clean_captions, folder_splits
from workbench.errors import SettingError
from workbench.files import atomic_write, cache_folder, sha256_of_json

_IMAGES = ("jpg", "jpeg", "png", "webp")
_TEXTS = ("txt", "json")  # the first that a pair has holds its caption
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "captions": pa.list_(pa.string()),
        "shard": pa.int32(),
        "offset": pa.int64(),
        "size": pa.int64(),
    }
)
_VERSION = 1  # raise it with every change to what the index holds


def open_shards(base: Path, names: list[str], max_pixels: int) -> Opened:
    """Pairs of the tar files `names` (relative to `base`); a pair's id is its shard's name and its key.

    Nothing is extracted and nothing but images, txt and json is looked at. The index lies in the cache, under
    a name made of the shards' paths, sizes and times, and is memory-mapped.
    """
    paths = [base / name for name in names]
    index = _index(paths, names)
    table, lost, skipped = _read_index(index)
    splits = folder_splits(names)
    split_of_shard = pa.array(splits or [None] * len(names), pa.string())
    split = split_of_shard.take(table["shard"].combine_chunks())
    if splits and split.null_count:
        lost["no split"] += split.null_count
    pairs = table.select(["id", "captions"]).append_column("split", split)
    return Opened(pairs, ShardReader(index, [str(path) for path in paths], max_pixels), lost, skipped)


@dataclass
class ShardReader:
    """Reads the image of a row from its place in a shard; every process opens the index itself."""

    index: Path
    shards: list[str]
    max_pixels: int
    _places: pa.Table | None = field(default=None, repr=False, compare=False)

    def __call__(self, row: int) -> torch.Tensor:
        shard, offset, size = (column[row].as_py() for column in self._opened().columns)
        try:
            with open(self.shards[shard], "rb", buffering=0) as stream:
                stream.seek(offset)
                data = stream.read(size)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            raise BadSample("missing file" if missing else "unreadable file") from error
        if len(data) < size:
            raise BadSample("truncated shard")
        return decode_image(data, self.max_pixels)

    def files(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """The shards that hold these rows, each once."""
        return [self.shards[shard] for shard in np.unique(self.shard_of(rows))]

    def shard_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The number of the shard that holds each of these rows."""
        return self._opened()["shard"].to_numpy()[rows]

    def _opened(self) -> pa.Table:
        if self._places is None:
            self._places = _read_index(self.index)[0].select(["shard", "offset", "size"])
        return self._places

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_places": None}


def _read_index(path: Path) -> tuple[pa.Table, Counter[str], Counter[str]]:
    """The index in a file, a record batch a shard, and what its metadata counts: lost and skipped."""
    lost, skipped, batches = Counter[str](), Counter[str](), []
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    for number in range(reader.num_record_batches):
        batch, metadata = reader.get_batch_with_custom_metadata(number)
        batches.append(batch)
        lost.update(json.loads(metadata[b"lost"]))
        skipped.update(json.loads(metadata[b"skipped"]))
    return pa.Table.from_batches(batches, schema=_SCHEMA), lost, skipped


def _index(paths: list[Path], names: list[str]) -> Path:
    """The index file of these shards, written on the first call."""
    key = [_VERSION, LARGEST_IMAGE, LARGEST_TEXT, names]
    for path in paths:
        status = path.stat()
        key.append([os.path.abspath(path), status.st_size, status.st_mtime_ns])
    index = cache_folder("index", f"{sha256_of_json(key)[:32]}.arrow")
    if not index.is_file():
        progress = tqdm(paths, "indexing shards", unit="shard", disable=None, leave=False)
        with atomic_write(index) as stream, pa.ipc.new_file(stream, _SCHEMA) as writer:
            for number, path in enumerate(progress):
                contents = _ShardContents(path)
                batch = contents.batch(number, os.path.splitext(names[number])[0])
                counts = {"lost": json.dumps(contents.lost), "skipped": json.dumps(contents.skipped)}
                writer.write_batch(batch, custom_metadata=counts)
    return index


class _ShardContents:
    """What one tar file holds: per key the image's place and its texts; rejected pairs are counted."""

    def __init__(self, path: Path) -> None:
        self.lost, self.skipped = Counter[str](), Counter[str]()
        self._places: dict[str, tuple[int, int]] = {}
        self._texts: dict[str, dict[str, bytes]] = {}
        self._rejected: dict[str, Reason] = {}  # what is wrong with a member of a key
        with open(path, "rb") as stream:
            self._length = os.fstat(stream.fileno()).st_size
            try:
                with tarfile.open(fileobj=stream, mode="r:") as tar:
                    for member in tar:
                        self._take(member, stream)
                    # tarfile takes any block that is no header for the end, but only zeros are.
                    stream.seek(tar.offset)
                    whole = not stream.read(tarfile.BLOCKSIZE).strip(b"\0")
            except (tarfile.TarError, ValueError, OverflowError) as error:
                if not (self._places or self._texts or self._rejected):
                    problem = f"not a readable tar file ({error})"
                    remedy = "Shards are plain tar files: repair, unpack or remove this one."
                    raise SettingError("data.source", str(path), problem, remedy) from error
                whole = False
        if not whole and "truncated shard" not in self._rejected.values():
            self.lost["truncated shard"] += 1

    def batch(self, shard: int, prefix: str) -> pa.RecordBatch:
        """The usable pairs, in the order of the shard; the others are counted."""
        rows = []
        for key in dict.fromkeys([*self._places, *self._texts, *self._rejected]):
            try:
                if key in self._rejected:
                    raise BadSample(self._rejected[key])
                if key not in self._places:
                    raise BadSample("no image")
                captions = clean_captions(_captions(self._texts.get(key, {})), self.skipped)
                rows.append((f"{prefix}/{key}", captions, shard, *self._places[key]))
            except BadSample as error:
                self.lost[error.reason] += 1
        records = [dict(zip(_SCHEMA.names, row, strict=True)) for row in rows]
        return pa.RecordBatch.from_pylist(records, schema=_SCHEMA)

    def _take(self, member: tarfile.TarInfo, stream: IO[bytes]) -> None:
        key, extension = _key_and_extension(member.name)
        if member.isdir():
            return
        if not key or extension not in (*_IMAGES, *_TEXTS):
            self.skipped["another type of file"] += 1
        elif not _is_safe(key):
            self._rejected[key] = "unsafe name"
        elif not member.isreg() or member.issparse():
            self._rejected[key] = "not a regular file"
        elif not 0 <= member.size <= (LARGEST_IMAGE if extension in _IMAGES else LARGEST_TEXT):
            self._rejected[key] = "file too large"
        elif member.offset_data + member.size > self._length:
            self._rejected[key] = "truncated shard"
        elif extension in _TEXTS:
            stream.seek(member.offset_data)
            self._texts.setdefault(key, {})[extension] = stream.read(member.size)
        elif key in self._places:
            self._rejected[key] = "duplicate id"
        else:
            self._places[key] = (member.offset_data, member.size)


def _key_and_extension(name: str) -> tuple[str, str]:
    """A member's key and lower-case extension, split at the last component's first dot as in webdataset."""
    folder, slash, last = name.removeprefix("./").rpartition("/")
    stem, _, extension = last.partition(".")
    return folder + slash + stem if stem else "", extension.lower()


def _is_safe(key: str) -> bool:
    """Whether a key is a plain relative path in Unicode."""
    parts = key.replace("\\", "/").split("/")
    return parts[0] != "" and ".." not in parts and "\0" not in key and key.isprintable()


def _captions(texts: dict[str, bytes]) -> list[Any]:
    """A pair's captions: its txt, else `caption` in its json."""
    if "txt" in texts:
        return [texts["txt"]]
    if "json" not in texts:
        raise BadSample("no caption")
    try:
        captions = json.loads(texts["json"].decode("utf-8-sig"))["caption"]
    except UnicodeError as error:
        raise BadSample("caption not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise BadSample("damaged record") from error
    except (KeyError, TypeError) as error:
        raise BadSample("no caption") from error
    return captions if isinstance(captions, list) else [captions]
