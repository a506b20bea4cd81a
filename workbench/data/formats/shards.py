"""Opens tar shards as img2dataset writes them, with random access through an index that is made once."""

import contextlib
import functools
import json
import os
import tarfile
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from workbench.data.decode import BadSample, Reason
from workbench.data.formats.shard_reader import SCHEMA, ShardReader, indexed_pairs, read_index
from workbench.data.index import cached_index
from workbench.data.remote import FileState, cached_copy, file_states, in_parallel, is_remote, open_remote
from workbench.data.source import (
    LARGEST_IMAGE,
    LARGEST_TEXT,
    Opened,
    Rejected,
    clean_captions,
    note_unsplit,
    text_captions,
)
from workbench.data.splits import split_draw, splits_in_names
from workbench.errors import SettingError

_IMAGES = ("jpg", "jpeg", "png", "webp")
CAPTION = "caption"  # the usual field of a json
_TEXTS = ("txt", "json")  # the first one that a pair has contains its caption
LARGEST_HEADER = 1 << 20  # bytes of a long name or of extended attributes
_VERSION = 3  # increase it with every change to the content of the index


def open_shards(
    base: str | Path,
    names: list[str],
    max_pixels: int,
    caption_lines: bool = True,
    shard_cache: float | None = None,
    captions_needed: bool = True,
    caption_column: str = CAPTION,
) -> Opened:
    """Open the tar files `names` (relative to `base`, a folder or a URL). A pair's id is the name of its
    shard and its key.

    Nothing is extracted, and only images, txt and json are read. The index is stored in the cache under a key
    made of the shards' paths, sizes and times, and memory-mapped. `shard_cache` is how many gigabytes of
    remote shards are cached; None reads every picture from the remote shard. `caption_column` is the field of
    a pair's json with its captions; `caption` is also a pair's txt.
    """
    paths = [os.path.join(base, name) for name in names]
    states = file_states(paths) if is_remote(str(base)) else None
    index = _index(paths, names, states, caption_lines, shard_cache, captions_needed, caption_column)
    table, lost, skipped = read_index(index)
    if captions_needed and not len(table):
        fields = _ShardContents(paths[0], open_remote(states[0]) if states else None).fields
        if caption_column != CAPTION or (fields and CAPTION not in fields):
            problem = f"no json of these shards has usable captions there ({lost.described()})"
            has = f"It has {', '.join(map(repr, fields)) or 'no readable json'}."
            raise SettingError("data.caption_column", caption_column, problem, has)
    splits = splits_in_names(str(base), names, stems=True)
    split_of_shard = pa.array(splits or [None] * len(names), pa.string())
    split = split_of_shard.take(table["shard"].combine_chunks())
    pairs = table.select(["id", "captions", "draw"]).append_column("split", split)
    note_unsplit(pairs, lost)
    reader = ShardReader(index, paths, max_pixels, states, shard_cache)
    split_from = "the names of its folders and shards"
    return Opened(pairs, reader, lost, skipped, split_from, functools.partial(indexed_pairs, index))


def _index(
    paths: list[str],
    names: list[str],
    states: list[FileState] | None,
    caption_lines: bool,
    shard_cache: float | None,
    captions_needed: bool,
    column: str,
) -> Path:
    """The index file of these shards, written on the first call. `states` are the states of remote shards."""
    key = [_VERSION, LARGEST_IMAGE, LARGEST_TEXT, names, caption_lines]
    key += [] if captions_needed else ["captions not needed"]
    key += [] if column == CAPTION else [f"captions: {column}"]
    if states is not None:
        key += [list(state) for state in states]
    else:
        for path in paths:
            status = os.stat(path)
            key.append([os.path.abspath(path), status.st_size, status.st_mtime_ns])

    def contents(number: int) -> Any:
        if states is None:
            return _ShardContents(paths[number])
        copy = cached_copy(states[number], shard_cache) if shard_cache else None
        return _ShardContents(paths[number], open(copy, "rb") if copy else open_remote(states[number]))

    def write(stream: IO[bytes]) -> None:
        # Several requests at a time hide the latency of a network.
        order = range(len(paths))
        shards = in_parallel(contents, order, ahead=8) if states is not None else map(contents, order)
        progress = tqdm(shards, "indexing shards", total=len(paths), unit="shard", disable=None, leave=False)
        draws = []
        with pa.ipc.new_file(stream, SCHEMA) as writer:
            for number, shard in enumerate(progress):
                prefix = os.path.splitext(names[number])[0]
                batch = shard.batch(number, prefix, caption_lines, captions_needed, column)
                counts = {"lost": shard.lost, "skipped": shard.skipped}
                metadata = {name: json.dumps([what, what.examples]) for name, what in counts.items()}
                writer.write_batch(batch, custom_metadata=metadata)
                draws.append(batch["draw"].to_numpy())
        stream.flush()
        _check_unique(Path(stream.name), np.concatenate(draws))

    return cached_index(key, write)


def _check_unique(index: Path, draws: npt.NDArray[np.uint64]) -> None:
    """Raise SettingError if two pairs have the same id. Equal ids have equal draws, which are fast to
    compare."""
    values, counts = np.unique(draws, return_counts=True)
    if len(values) == len(draws):
        return
    suspects = pa.array(np.isin(draws, values[counts > 1]))
    ids = Counter(pa.ipc.open_file(pa.memory_map(str(index))).read_all()["id"].filter(suspects).to_pylist())
    if repeated := [identity for identity, count in ids.items() if count > 1]:
        problem = f"ids must be unique, these are not: {repeated[:5]}"
        remedy = "An id is the shard's path and the pair's key: rename the shards whose ids are the same."
        raise SettingError("data.source", str(repeated[0]), problem, remedy)


class _BoundedStream:
    """A file that refuses to read a header longer than any real one."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.tell, self.seek = stream.tell, stream.seek

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LARGEST_HEADER:
            raise OverflowError(f"a header of {size} bytes")
        return self._stream.read(size)


class _ShardContents:
    """The contents of one tar file: by key, the image's offset and size and its texts. Counts rejected
    pairs."""

    def __init__(self, path: str, opened: IO[bytes] | None = None) -> None:
        self.lost, self.skipped = Rejected(), Rejected()
        self._name = os.path.basename(path)
        self._places: dict[str, tuple[int, int]] = {}
        self._texts: dict[str, dict[str, bytes]] = {}
        self._rejected: dict[str, Reason] = {}  # what is wrong with a member of a key
        with opened or open(path, "rb") as stream:
            self._length = stream.seek(0, os.SEEK_END)
            try:
                whole = self._take_all(stream)
            except (tarfile.TarError, ValueError) as error:
                if not (self._places or self._texts or self._rejected):
                    problem = f"not a readable tar file ({error})"
                    remedy = "Shards are plain tar files: repair, unpack or remove this one."
                    raise SettingError("data.source", path, problem, remedy) from error
                whole = False
        if not whole and "truncated shard" not in self._rejected.values():
            self.lost.note("truncated shard", self._name)

    def _take_all(self, stream: IO[bytes]) -> bool:
        """Read every member. Returns whether the file ends like a complete tar file.

        After a member that claims to be larger than the file, or than a header can be, reading continues at
        the next block that is a header.
        """
        start: int | None = 0
        while start is not None:
            position = start
            try:
                stream.seek(start)
                tar = tarfile.TarFile(fileobj=_BoundedStream(stream))  # type: ignore[arg-type]
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # otherwise it keeps all of them
                    position = tar.offset
                    self._take(member, stream)
                    if not 0 <= member.size <= self._length - member.offset_data:
                        start = _next_header(stream, member.offset_data)
                        break
                else:
                    # tarfile takes any block that is not a header for the end, but only zeros are.
                    stream.seek(tar.offset)
                    return not stream.read(tarfile.BLOCKSIZE).strip(b"\0")
            except (OverflowError, RecursionError):  # an impossible header, or a thousand in a row
                self.lost.note("damaged record", self._name)
                start = _next_header(stream, max(position + tarfile.BLOCKSIZE, stream.tell()))
        return False

    def batch(
        self, shard: int, prefix: str, caption_lines: bool, captions_needed: bool, column: str
    ) -> pa.RecordBatch:
        """The usable pairs, in the order of the shard. The others are counted."""
        rows = []
        for key in dict.fromkeys([*self._places, *self._texts, *self._rejected]):
            try:
                if key in self._rejected:
                    raise BadSample(self._rejected[key])
                if key not in self._places:
                    raise BadSample("no image")
                texts = _captions(self._texts.get(key, {}), caption_lines, captions_needed, column)
                identity = f"{prefix}/{key}"
                captions = clean_captions(texts, self.skipped, identity, captions_needed)
                rows.append((identity, captions, split_draw(identity), shard, *self._places[key]))
            except BadSample as error:
                self.lost.note(error.reason, f"{prefix}/{key}")
        records = [dict(zip(SCHEMA.names, row, strict=True)) for row in rows]
        return pa.RecordBatch.from_pylist(records, schema=SCHEMA)

    @property
    def fields(self) -> list[str]:
        """The fields of the first json, none if it cannot be read."""
        first: bytes = next((texts["json"] for texts in self._texts.values() if "json" in texts), b"")
        try:
            return list(map(str, json.loads(first)))
        except (ValueError, TypeError, RecursionError):
            return []

    def _take(self, member: tarfile.TarInfo, stream: IO[bytes]) -> None:
        key, extension = _key_and_extension(member.name)
        if member.isdir():
            return
        if not key or extension not in (*_IMAGES, *_TEXTS):
            self.skipped.note("another type of file", member.name)
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


def _next_header(stream: IO[bytes], start: int) -> int | None:
    """The offset of the first header from `start` on, in whole blocks. None if there is none."""
    stream.seek(start)
    while len(block := stream.read(tarfile.BLOCKSIZE)) == tarfile.BLOCKSIZE:
        with contextlib.suppress(tarfile.HeaderError):
            tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
            return start
        start += tarfile.BLOCKSIZE
    return None


def _key_and_extension(name: str) -> tuple[str, str]:
    """A member's key and lower-case extension, split at the first dot of its file name as in webdataset."""
    folder, slash, last = name.removeprefix("./").rpartition("/")
    stem, _, extension = last.partition(".")
    return folder + slash + stem if stem else "", extension.lower()


def _is_safe(key: str) -> bool:
    """Whether a key is a plain relative path in Unicode."""
    parts = key.replace("\\", "/").split("/")
    return parts[0] != "" and ".." not in parts and "\0" not in key and key.isprintable()


def _captions(texts: dict[str, bytes], a_line: bool, needed: bool, column: str) -> list[Any]:
    """The captions of a pair: those in its json's field `column`. For `caption`, a txt comes first."""
    if "txt" in texts and column == CAPTION:
        return list(text_captions(texts["txt"], a_line))
    if "json" not in texts:
        if not needed:
            return []
        raise BadSample("no caption")
    try:
        captions = json.loads(texts["json"].decode("utf-8-sig"))[column]
    except UnicodeError as error:
        raise BadSample("caption not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise BadSample("damaged record") from error
    except (KeyError, TypeError) as error:
        if not needed:
            return []
        raise BadSample("no caption") from error
    return captions if isinstance(captions, list) else [captions]
