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
from workbench.data.source import FileReader, Opened, Rows, check_file, clean_captions
from workbench.errors import SettingError

TABLE_EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet")
SPLIT_COLUMN = "split"
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
    rows, lost, skipped = Rows(), Counter[str](), Counter[str]()
    has_splits = False
    for path in paths:
        for record in _records(path, image_column, caption_column, lost):
            try:
                name, image = _image(record[image_column], folder)
                captions = clean_captions(_as_list(record[caption_column], path), skipped)
                split = _text(record.get(SPLIT_COLUMN))
                has_splits = has_splits or bool(split)
                rows.add(name, captions, split or None, image)
            except BadSample as error:
                lost[error.reason] += 1
    table = rows.table()
    if has_splits and (unsplit := table["split"].null_count):
        lost["no split"] += unsplit
        table = table.filter(pc.is_valid(table["split"]))
    table = _merge(table, paths)
    return Opened(table.drop_columns("path"), FileReader(table["path"], max_pixels), lost, skipped)


def _records(path: Path, image_column: str, caption_column: str, lost: Counter[str]) -> Iterator[Record]:
    """The rows of a table with at least the two columns; strings may come as bytes."""
    kind = path.suffix.lower()
    needed = (image_column, caption_column)
    try:
        if kind == ".jsonl":
            yield from _json_lines(path, needed, lost)
        elif kind == ".parquet":
            yield from _parquet(path, needed)
        else:
            yield from _separated(path, needed, lost)
    except (pa.ArrowException, csv.Error, OSError) as error:
        remedy = "Repair the file or leave it out."
        raise SettingError(
            "data.source", str(path), f"not a readable {kind[1:]} table ({error})", remedy
        ) from error


def _separated(path: Path, needed: tuple[str, str], lost: Counter[str]) -> Iterator[Record]:
    with open(path, "rb") as stream:
        header = stream.readline(1 << 20).decode("utf-8-sig", errors="replace")
    found = [next(csv.reader([header], delimiter=separator), []) for separator in "\t,;|"]
    columns = max(found, key=lambda names: (set(needed) <= set(names), len(names)))
    _check_columns(path, needed, columns)

    def count(row: pa.csv.InvalidRow) -> str:
        lost["damaged record"] += 1
        return "skip"

    wanted = [name for name in dict.fromkeys((*needed, SPLIT_COLUMN)) if name in columns]
    separator = "\t,;|"[found.index(columns)]
    batches = pa.csv.open_csv(
        path,
        pa.csv.ReadOptions(block_size=16 << 20, use_threads=False),
        pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=count),
        # As bytes: one caption that is not UTF-8 is one row to count, not the end of the file.
        pa.csv.ConvertOptions(column_types=dict.fromkeys(wanted, pa.binary()), include_columns=wanted),
    )
    checked = False
    for batch in batches:
        if not checked and any(pc.any(pc.match_substring(each, "\n")).as_py() for each in batch.columns):
            _check_quotes(path, separator)
            checked = True
        yield from batch.to_pylist()


def _check_quotes(path: Path, separator: str) -> None:
    """SettingError where a quote that is not closed has swallowed the rows after it."""
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
            except UnicodeError:
                lost["caption not UTF-8"] += 1
            except (ValueError, AttributeError, RecursionError):
                lost["damaged record"] += 1
            else:
                if set(needed) <= record.keys():
                    yield record
                else:
                    lost["damaged record"] += 1
    if columns:
        _check_columns(path, needed, sorted(columns))


def _parquet(path: Path, needed: tuple[str, str]) -> Iterator[Record]:
    with pq.ParquetFile(path) as file:
        _check_columns(path, needed, file.schema_arrow.names)
        wanted = [name for name in file.schema_arrow.names if name in (*needed, SPLIT_COLUMN)]
        for batch in file.iter_batches(columns=wanted):
            yield from batch.to_pylist()


def _check_columns(path: Path, needed: tuple[str, str], columns: list[str]) -> None:
    for setting, name in zip(("data.image_column", "data.caption_column"), needed, strict=True):
        if name not in columns:
            problem = f"{path.name} has no such column"
            raise SettingError(setting, name, problem, f"It has {', '.join(map(repr, columns)) or 'none'}.")


def _image(value: Any, folder: Path) -> tuple[str, str]:
    """The path of an image as written, tidied, and where it lies."""
    written = _text(value, not_utf8="unsafe name")
    if not written:
        raise BadSample("no image")
    if "://" in written:
        raise BadSample("a URL, not a file")
    name = os.path.normpath(written)
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
        found = ast.literal_eval(value.decode("utf-8-sig").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(each, str) for each in found) else None


def _merge(table: pa.Table, paths: list[Path]) -> pa.Table:
    """One row an image, at its first row's place, with the captions of all its rows in order."""
    if not len(table):
        return table
    image = pc.dictionary_encode(table["id"]).unify_dictionaries().combine_chunks().indices.to_numpy()
    unique, first = np.unique(image, return_index=True)
    if len(unique) == len(table):
        return table
    torn = pc.not_equal(table["split"], table["split"].take(pa.array(first[np.searchsorted(unique, image)])))
    if pc.any(torn).as_py():
        names = table["id"].filter(torn)
        problem = (
            f"{len(names)} rows put an image into one split that another row has put into another: {names[0]}"
        )
        remedy = f"Give every image one split in the column {SPLIT_COLUMN!r}."
        raise SettingError("data.source", ", ".join(map(str, paths)), problem, remedy)
    captions = table["captions"].take(pa.array(np.argsort(image, kind="stable")))
    lengths = pc.list_value_length(table["captions"]).to_numpy()
    ends = np.cumsum(np.bincount(image, weights=lengths)).astype(np.int32)
    merged = pa.ListArray.from_arrays(
        np.concatenate([np.zeros(1, np.int32), ends]), pc.list_flatten(captions).combine_chunks()
    )
    return pa.table(
        {
            name: merged if name == "captions" else table[name].take(pa.array(first))
            for name in table.column_names
        }
    )
