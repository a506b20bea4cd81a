"""Opens parquet tables that contain the pictures, as the Hugging Face hub and img2dataset write them.

A parquet file is compressed in groups of rows, so reading one picture would unpack hundreds. All pictures are
therefore unpacked once into the cache, where each can be read by itself.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from workbench.data.contents import DIGEST, digest
from workbench.data.decode import BadSample, decode_image, is_image
from workbench.data.formats.column_names import column_called
from workbench.data.source import (
    Opened,
    PairRows,
    clean_captions,
    is_split_column,
    note_unsplit,
    split_of_record,
)
from workbench.errors import SettingError
from workbench.files import atomic_write, cache_folder, cache_lock, sha256_of_json

_USUAL = "image"
_IMG2DATASET = ("jpg", "jpeg", "png", "webp")
_SCHEMA = pa.schema({"digest": pa.binary(DIGEST), "bytes": pa.large_binary()})
_VERSION = 2
_BATCH = 256


def picture_column(path: Path, column: str) -> str | None:
    """The column of a parquet table that contains pictures, None if `column` contains paths.

    This is `column` or, if that is the default `image` and missing, img2dataset's `jpg`, `png` or `webp`.
    Pictures are bytes, or `{bytes, path}` as in Hugging Face's image feature. Raises `SettingError` for an
    unreadable table, and for `{bytes, path}` without bytes.
    """
    if path.suffix.lower() != ".parquet":
        return None
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            names = (column, *(_IMG2DATASET if column == _USUAL else ()))
            name = next((name for name in names if name in schema.names), None)
            if name is None or not (
                _is_binary(schema.field(name).type) or _has_bytes(schema.field(name).type)
            ):
                return None
            for batch in file.iter_batches(_BATCH, columns=[name]):
                for value in batch[name].to_pylist():
                    data = value["bytes"] if isinstance(value, dict) else value
                    if data:
                        return name if _has_bytes(schema.field(name).type) or is_image(data) else None
    except (pa.ArrowException, OSError) as error:
        problem = f"not a readable parquet table ({error})"
        raise SettingError("data.source", str(path), problem, "Repair or remove the file.") from error
    if _has_bytes(schema.field(name).type):
        problem = f"its {{bytes, path}} in {path.name} are paths without bytes"
        raise SettingError("data.image_column", name, problem, "Store the pictures, or a column of paths.")
    return None


def open_pictures(
    base: Path,
    names: list[str],
    splits: list[str | None],
    columns: list[Any],
    caption_column: str,
    max_pixels: int,
    captions_needed: bool = True,
) -> Opened:
    """Open the parquet tables `names` in `base` with pictures in `columns`. A pair's id is the name of its
    table and its row.

    `splits` are the splits that the tables' names stand for; a column `split` overrides them. The default
    `caption_column` may have the hub's name `text`.
    """
    rows, files, places = PairRows(), list[str](), list[tuple[int, int]]()
    split_from = "the names of its folders and tables"
    for number, (name, split, column) in enumerate(zip(names, splits, columns, strict=True)):
        path, prefix = base / name, os.path.splitext(name)[0]
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            captions_in = column_called(path, caption_column)
            has_captions = captions_in in schema.names
            if not has_captions and captions_needed:
                has = f"It has {', '.join(map(repr, schema.names))}."
                raise SettingError(
                    "data.caption_column", caption_column, f"{path.name} has no such column", has
                )
            if has_captions:
                check_text_column(path, "data.caption_column", captions_in, schema)
            wanted = [name for name in schema.names if name == captions_in or is_split_column(name)]
            files.append(str(_unpacked(path, file, column)))
            row = 0
            for batch in file.iter_batches(columns=wanted):
                for record in batch.to_pylist():
                    identity = f"{prefix}/{row:06d}"
                    with rows.count_rejected(identity):
                        value = record.get(captions_in)
                        captions = [] if value is None else value if isinstance(value, list) else [value]
                        own = split_of_record(record)
                        split_from = "its column 'split'" if own else split_from
                        usable = clean_captions(captions, rows.skipped, identity, captions_needed)
                        rows.add(identity, usable, own or split, "")
                        places.append((number, row))
                    row += 1
    table = rows.table().drop_columns("path")
    note_unsplit(table, rows.lost)
    of_file, place = np.array(places, dtype=np.int64).reshape(-1, 2).T
    reader = UnpackedPictures(files, of_file, place, max_pixels)
    return Opened(table, reader, rows.lost, rows.skipped, split_from)


@dataclass
class UnpackedPictures:
    """Reads the picture of a row from a file in the cache, which every process memory-maps."""

    unpacked: list[str]
    of_file: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    max_pixels: int
    _tables: dict[int, pa.Table] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, row: int) -> torch.Tensor:
        number, place = int(self.of_file[row]), int(self.place[row])
        table = self._table(number)
        data = table["bytes"][place].as_py()
        if data is None:
            raise BadSample("no image")
        if digest(data) != table["digest"][place].as_py():
            problem = f"picture {place} of this file in the cache is damaged"
            raise SettingError(
                "data.source", self.unpacked[number], problem, "Delete it, and it is made again."
            )
        return decode_image(data, self.max_pixels)

    def digests(self, contents: bool) -> pa.Array:
        """A digest of every row's picture, computed when it was unpacked."""
        parts = []
        for number in range(len(self.unpacked)):
            column = self._table(number)["digest"].combine_chunks()
            parts.append(column.take(pa.array(self.place[self.of_file == number])))
        return pa.concat_arrays(parts)

    def _table(self, number: int) -> pa.Table:
        if number not in self._tables:
            self._tables[number] = _mapped(self.unpacked[number])
        return self._tables[number]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_tables": {}}


def _unpacked(path: Path, file: pq.ParquetFile, column: str) -> Path:
    """The file in the cache with a table's pictures, written if it is missing or damaged.

    Every batch carries a digest of its pictures' digests. A picture itself is checked when it is read.
    """
    status = path.stat()
    key = [_VERSION, os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, column]
    name = sha256_of_json(key)[:32]
    place = cache_folder("unpacked", f"{name}.arrow")
    with cache_lock(f"unpacked-{name}"):
        try:
            _mapped(place)
        except (OSError, pa.ArrowException):
            with atomic_write(place) as stream, pa.ipc.new_file(stream, _SCHEMA) as writer:
                for batch in file.iter_batches(_BATCH, columns=[column]):
                    values = batch[column].to_pylist()
                    data = [value.get("bytes") if isinstance(value, dict) else value for value in values]
                    pictures = [None if picture is None else digest(picture) for picture in data]
                    unpacked = pa.record_batch([pictures, data], schema=_SCHEMA)
                    writer.write_batch(unpacked, custom_metadata={"digest": _digest_of(pictures)})
    return place


def _mapped(path: str | Path) -> pa.Table:
    """The pictures in a file, memory-mapped. Raises `ArrowException` or `OSError` if the file is missing or
    does not match its digests."""
    reader, batches = pa.ipc.open_file(pa.memory_map(str(path))), []
    for number in range(reader.num_record_batches):
        batch, metadata = reader.get_batch_with_custom_metadata(number)
        batch.validate(full=True)  # otherwise offsets beyond the end of the file are read unchecked
        if not metadata or metadata.get("digest") != _digest_of(batch["digest"].to_pylist()):
            raise pa.ArrowInvalid(f"batch {number} does not match its digest")
        batches.append(batch)
    return pa.Table.from_batches(batches, schema=_SCHEMA)


def _digest_of(digests: list[bytes | None]) -> bytes:
    return digest(b"".join(value or b"-" for value in digests))


def check_text_column(path: Path, setting: str, column: str, schema: pa.Schema) -> None:
    """Raise `SettingError` if a column contains neither texts nor lists of texts."""
    kind = schema.field(column).type
    inner = kind.value_type if pa.types.is_dictionary(kind) or pa.types.is_list(kind) else kind
    inner = inner.value_type if pa.types.is_large_list(inner) else inner
    if not (pa.types.is_string(inner) or pa.types.is_large_string(inner) or _is_binary(inner)):
        if pa.types.is_null(inner) or pa.types.is_string_view(inner):
            return
        names = ", ".join(f"{name!r} ({schema.field(name).type})" for name in schema.names)
        problem = f"{path.name} holds {kind} there, not text"
        raise SettingError(setting, column, problem, f"It has {names}.")


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _has_bytes(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    index = kind.get_field_index("bytes")
    return index >= 0 and _is_binary(kind.field(index).type)
