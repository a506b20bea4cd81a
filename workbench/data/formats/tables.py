"""Opens csv, tsv, jsonl and parquet tables with a column of image paths and one of captions."""

import ast
import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from workbench.data.decode import BadSample, Reason
from workbench.data.source import Opened, PairRows, check_file, clean_captions
from workbench.errors import SettingError

TABLE_EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet")
SPLIT_COLUMN = "split"
MOST_TEXT, MOST_RATIO = 64 << 20, 1000  # bytes that a parquet table may unpack into, beside those of its size
Record = dict[str, Any]


def open_tables(
    paths: list[Path], image_folder: Path | None, image_column: str, caption_column: str, max_pixels: int
) -> Opened:
    """Pairs of one or several tables; a pair's id is the path of its image as written there.

    Rows of the same image become one pair. Captions are a string or a list, in csv and tsv also a list as
    JSON or pandas writes it; a column `split` is honoured. Relative paths start from `image_folder`, else
    from the tables' own folder, and may not leave it; absolute ones are taken as they are. What cannot be
    used is counted by row.
    """
    folders = {path.parent for path in paths}
    if image_folder is None and len(folders) > 1:
        problem = f"the tables lie in {len(folders)} folders, and relative paths could start from any of them"
        raise SettingError("data.image_folder", None, problem, "Name the folder that the paths start from.")
    folder = image_folder or paths[0].parent
    rows, has_splits = PairRows(), False
    for path in paths:
        for record in _records(path, (image_column, caption_column), rows.lost):
            with rows.count_rejected():
                name, image = _image(record[image_column], folder)
                captions = clean_captions(_as_list(record[caption_column], path), rows.skipped)
                split = _text(record.get(SPLIT_COLUMN))
                has_splits = has_splits or bool(split)
                rows.add(name, captions, split or None, image)
    table = rows.table()
    if has_splits and (unsplit := table["split"].null_count):
        rows.lost["no split"] += unsplit
        table = table.filter(pc.is_valid(table["split"]))
    return rows.opened(max_pixels, _merge(table, paths))


def _records(path: Path, needed: tuple[str, str], lost: Counter[str]) -> Iterator[Record]:
    """The rows of a table with at least the two columns; strings may come as bytes."""
    kind = path.suffix.lower()
    try:
        if kind == ".jsonl":
            yield from _json_lines(path, needed, lost)
        elif kind == ".parquet":
            yield from _parquet(path, needed)
        else:
            yield from _separated(path, needed, lost)
    except (pa.ArrowException, csv.Error, OSError) as error:
        problem = f"not a readable {kind[1:]} table ({error})"
        raise SettingError("data.source", str(path), problem, "Repair or remove the file.") from error


def _separated(path: Path, needed: tuple[str, str], lost: Counter[str]) -> Iterator[Record]:
    with open(path, "rb") as stream:
        header = stream.readline(1 << 20).decode("utf-8-sig", errors="replace")
    headers = {separator: next(csv.reader([header], delimiter=separator), []) for separator in "\t,;|"}
    separator, columns = max(headers.items(), key=lambda item: (set(needed) <= set(item[1]), len(item[1])))
    _check_columns(path, needed, columns)

    def count(row: pa.csv.InvalidRow) -> str:
        lost["damaged record"] += 1
        return "skip"

    names = [name for name in dict.fromkeys((*needed, SPLIT_COLUMN)) if name in columns]
    batches = pa.csv.open_csv(
        path,
        pa.csv.ReadOptions(block_size=16 << 20, use_threads=False),
        pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=count),
        # As bytes: one caption that is not UTF-8 is one row to count, not the end of the file.
        pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary()), include_columns=names),
    )
    checked = False
    for batch in batches:
        if not checked and any(pc.any(pc.match_substring(column, "\n")).as_py() for column in batch.columns):
            _check_quotes(path, separator)
            checked = True
        yield from batch.to_pylist()


def _check_quotes(path: Path, separator: str) -> None:
    """Raise SettingError where an unclosed quote has swallowed the rows after it."""
    start = 1
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as stream:
        rows = csv.reader(stream, delimiter=separator, strict=True)
        try:
            for _ in rows:
                start = rows.line_num + 1
        except csv.Error as error:
            problem = f"line {start} of {path.name} has a quote that is not closed, or not doubled ({error})"
            remedy = "Close it, or write it twice inside a quoted cell."
            raise SettingError("data.source", str(path), problem, remedy) from None


def _json_lines(path: Path, needed: tuple[str, str], lost: Counter[str]) -> Iterator[Record]:
    columns: set[str] = set()
    with open(path, "rb") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8-sig"))
                columns |= record.keys()
                if not set(needed) <= record.keys():
                    raise KeyError
            except UnicodeError:
                lost["caption not UTF-8"] += 1
            except (ValueError, KeyError, AttributeError, RecursionError):
                lost["damaged record"] += 1
            else:
                yield record
    if columns:
        _check_columns(path, needed, sorted(columns))


def _parquet(path: Path, needed: tuple[str, str]) -> Iterator[Record]:
    with pq.ParquetFile(path) as file:
        _check_columns(path, needed, file.schema_arrow.names)
        names = [name for name in file.schema_arrow.names if name in (*needed, SPLIT_COLUMN)]
        allowed = MOST_TEXT + MOST_RATIO * path.stat().st_size
        for batch in file.iter_batches(2048, columns=names):
            allowed -= batch.nbytes
            if allowed < 0:
                problem = f"its {path.stat().st_size:,} bytes unpack into more than a thousand times as many"
                raise SettingError(
                    "data.source", str(path), problem, "No real captions pack so well: remove it."
                )
            yield from batch.to_pylist()


def _check_columns(path: Path, needed: tuple[str, str], columns: list[str]) -> None:
    for setting, name in zip(("data.image_column", "data.caption_column"), needed, strict=True):
        if name not in columns:
            problem = f"{path.name} has no such column"
            raise SettingError(setting, name, problem, f"It has {', '.join(map(repr, columns)) or 'none'}.")


def _image(value: Any, folder: Path) -> tuple[str, str]:
    """The path of an image as written, tidied, and where it lies."""
    path = _text(value, not_utf8="unsafe name")
    if not path:
        raise BadSample("no image")
    if "://" in path:
        raise BadSample("a URL, not a file")
    name = os.path.normpath(path)
    if name == ".." or name.startswith("../"):
        raise BadSample("path leaves the image folder")
    image = os.path.join(folder, name)
    check_file(image)
    return name, image


def _text(value: Any, not_utf8: Reason = "damaged record") -> str:
    try:
        text = value.decode("utf-8-sig") if isinstance(value, bytes) else value
    except UnicodeError as error:
        raise BadSample(not_utf8) from error
    if text is None:
        return ""
    if not isinstance(text, str):
        raise BadSample("damaged record")
    return text.strip()


def _as_list(value: Any, path: Path) -> list[Any]:
    if value is None:
        raise BadSample("no caption")
    if path.suffix.lower() in (".csv", ".tsv") and value.lstrip().startswith(b"["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return _python_list(value) or [value]  # else a caption that begins with a bracket
    return value if isinstance(value, list) else [value]


def _python_list(value: bytes) -> list[str] | None:
    """A list as pandas writes it, with Python's quotes; None for anything else."""
    try:
        items = ast.literal_eval(value.decode("utf-8-sig").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return items if isinstance(items, list) and all(isinstance(item, str) for item in items) else None


def _merge(table: pa.Table, paths: list[Path]) -> pa.Table:
    """One row an image, at its first row's place, with the captions of all its rows in order."""
    if not len(table):
        return table
    image = pc.dictionary_encode(table["id"]).unify_dictionaries().combine_chunks().indices.to_numpy()
    unique, first = np.unique(image, return_index=True)
    if len(unique) == len(table):
        return table
    first_split = table["split"].take(pa.array(first[np.searchsorted(unique, image)]))
    contradictory = pc.not_equal(table["split"], first_split)
    if pc.any(contradictory).as_py():
        names = table["id"].filter(contradictory)
        problem = (
            f"{len(names)} rows put an image into one split that another row has put into another: {names[0]}"
        )
        remedy = f"Give every image one split in the column {SPLIT_COLUMN!r}."
        raise SettingError("data.source", ", ".join(map(str, paths)), problem, remedy)
    captions = table["captions"].take(pa.array(np.argsort(image, kind="stable")))
    lengths = pc.list_value_length(table["captions"]).to_numpy()
    ends = np.cumsum(np.bincount(image, weights=lengths)).astype(np.int32)
    starts = np.concatenate([np.zeros(1, np.int32), ends])
    merged = pa.ListArray.from_arrays(starts, pc.list_flatten(captions).combine_chunks())
    pairs = table.take(pa.array(first))
    return pairs.set_column(pairs.column_names.index("captions"), "captions", merged)
