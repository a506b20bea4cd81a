"""Assigns pictures to splits, by the words in tables and in names of folders and files, or by a hash."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workbench.errors import SettingError

USUAL_SPLITS = ("train", "val", "test")
_MEANINGS = {
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),  # as on the Hugging Face hub
}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")  # cc3m-train, cc3mTrain, CC3M_TRAIN
_HASH = re.compile(r"(?<=-of-\d{5})-[0-9a-f]{16}\b")  # train-00000-of-00001-6f3bd7b5a9ee4c8a.parquet


def split_named(word: str) -> str | None:
    """The split that a word stands for: `validation`, `valid`, `dev` and `VAL` are `val`. None for others."""
    return _MEANINGS.get(word.strip().casefold())


def meanings(words: Iterable[str]) -> dict[str, str]:
    """The split that each of a source's own words for its splits stands for.

    Words with the same meaning are one split if the source uses only one of them, and `restval` is `train`,
    as is customary. A source with both `val` and `dev` keeps them apart. Other words are unchanged.
    """
    spellings: dict[str, set[str]] = {}
    for word in set(words):
        if (split := split_named(word)) is not None and word.strip().casefold() != "restval":
            spellings.setdefault(split, set()).add(word.strip().casefold())
    result = {}
    for word in set(words):
        plain = word.strip().casefold()
        split = _MEANINGS.get(plain)
        alone = plain == "restval" or len(spellings.get(split or "", ())) <= 1
        result[word] = word if split is None else split if alone else plain
    return result


def splits_in_names(source: str, names: Sequence[str], *, stems: bool) -> list[str | None] | None:
    """The split of each relative path by its folders and, with `stems`, by its file's name; None if the names
    do not split the source.

    `train/0.jpg`, `VAL2017/0.jpg` and, with `stems`, `cc3m-validation-0000.tar` name splits. Names split a
    source if they name at least two splits; other files then have none. A word in a longer folder name
    (`cc3m_train`, `split=test`) counts for shards and tables, and for pictures if all are in such folders.
    Raises `SettingError` if some files name one split and the others none, because held-out ones would be
    trained on. Beside unnamed folders of pictures, `train` is no split: it may be the vehicle.
    """
    splits = _split_of_each(names, lambda path: _split_in_path(path, stems), stems)
    named = set(splits) - {None}
    if not named:
        splits = _split_of_each(names, _split_in_folders, False)
        named = set(splits) - {None}
        return splits if len(named) >= 2 and None not in splits else None
    if len(named) >= 2:
        return splits
    if None in splits and (stems or named != {"train"}):
        (split,) = named
        other = names[splits.index(None)]
        problem = (
            f"the names of {len(splits) - splits.count(None)} of its files say {split!r}, those of "
            f"{splits.count(None)} name no split, such as {other!r}"
        )
        remedy = f"Name the others too (train/{other}), or give one of the two by its own folder or glob."
        raise SettingError("data.source", source, problem, remedy)
    return None


def _split_of_each(
    names: Sequence[str], split_of: Callable[[PurePosixPath], str | None], stems: bool
) -> list[str | None]:
    """The split of every path; where file names do not count, found once for each folder."""
    if stems:
        return [split_of(PurePosixPath(name)) for name in names]
    known: dict[str, str | None] = {}
    folders = [os.path.dirname(name) for name in names]
    for folder in set(folders):
        known[folder] = split_of(PurePosixPath(folder, "file"))
    return [known[folder] for folder in folders]


def _split_in_path(path: PurePosixPath, stems: bool) -> str | None:
    for folder in path.parts[:-1]:
        if (split := split_named(re.sub(r"[-_]?\d+$", "", folder))) is not None:
            return split
    return (split_in_words(path.name) or _split_in_folders(path)) if stems else None


def _split_in_folders(path: PurePosixPath) -> str | None:
    splits = [split for folder in path.parts[:-1] if (split := split_in_words(folder)) is not None]
    return splits[0] if splits else None


def split_in_words(name: str) -> str | None:
    """The only split that the words of a name stand for, None if there is none or several."""
    splits = {split for word in _WORD.findall(name) if (split := split_named(word)) is not None}
    return splits.pop() if len(splits) == 1 else None


def without_split(name: str) -> str:
    """A file's name without words for splits, numbers and the hub's hashes, which is the same for all files
    of one set."""
    words = map(str.casefold, _WORD.findall(_HASH.sub("", name)))
    return " ".join(word for word in words if word != "of" and split_named(word) is None)


def hashed_splits(table: pa.Table, val_share: float, test_share: float) -> npt.NDArray[np.object_]:
    """A split for every row by a hash of its id, so that it stays the same when other rows come and go."""
    if not (val_share >= 0 and test_share >= 0 and val_share + test_share < 1):
        shares, problem = (val_share, test_share), "not shares of a whole"
        raise SettingError("val_share, test_share", shares, problem, "Take less than 1 together.")
    draw = _draws(table) / 2**64
    starts = [1 - val_share - test_share, 1 - test_share]
    chosen = np.searchsorted(starts, draw, side="right").astype(np.int8)  # an index into USUAL_SPLITS
    train, val, test = range(3)
    if len(table) >= 3 and not all(
        (chosen == split).any()
        for split, share in ((train, 1.0), (val, val_share), (test, test_share))
        if share
    ):
        # In a small source, the pair with the highest draw goes to an empty split.
        order = np.argsort(-draw, kind="stable")
        if not (chosen == train).any():
            chosen[order[-1]] = train
        for split, share in ((test, test_share), (val, val_share)):
            if share and not (chosen == split).any():
                chosen[next(row for row in order if (chosen == chosen[row]).sum() > 1)] = split
    return np.array(USUAL_SPLITS, dtype=object)[chosen]


def split_draw(identity: str) -> int:
    """A hash of a pair's id in [0, 2^64), which determines its split if its source has no splits."""
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8])


def _draws(table: pa.Table) -> npt.NDArray[np.uint64]:
    if "draw" in table.column_names:
        return np.asarray(table["draw"].to_numpy())
    ids = (identity for batch in table["id"].chunks for identity in batch.to_pylist())
    return np.fromiter(map(split_draw, ids), dtype=np.uint64, count=len(table))


def in_order(splits: npt.NDArray[np.object_]) -> list[str]:
    """The names of the splits, the usual ones first."""
    names = set(splits) - {None}
    return [split for split in USUAL_SPLITS if split in names] + sorted(names - set(USUAL_SPLITS))
