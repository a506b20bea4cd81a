"""Opens Animals with Attributes 2 and Caltech-UCSD Birds 200-2011 as they are distributed."""

import functools
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np

from workbench.data.decode import BadSample
from workbench.data.discovery import find_files, fits
from workbench.data.labelled.labels import (
    PHOTO_TEMPLATES,
    Attributes,
    Known,
    Labelled,
    Listed,
    open_images,
    read_lines,
    read_matrix,
    read_names,
    read_numbered,
)
from workbench.data.labelled.proposed_splits import find_proposed_split, read_proposed_split
from workbench.data.source import check_file
from workbench.errors import SettingError

BIRD_TEMPLATES = ("a photo of a {}, a type of bird.",)  # CLIP's for Birdsnap
CERTAIN = 3  # CUB's annotators were 1: unable to see it, 2: guessing, 3: probably right, 4: definitely

# Predicates of AwA2 that are not English as written.
_ANIMAL_WORDS = {
    "toughskin": "tough skin",
    "longleg": "long legs",
    "longneck": "long neck",
    "chewteeth": "chewing teeth",
    "meatteeth": "meat-eating teeth",
    "buckteeth": "buck teeth",
    "strainteeth": "straining teeth",
    "flys": "flies",
    "quadrapedal": "quadrupedal",
    "newworld": "new world",
    "oldworld": "old world",
    "nestspot": "nest spot",
}


def _locate(inner: str, images: str, classes: str, folder: Path) -> Path | None:
    """The folder of the set: `folder` or its sub-folder `inner`, None if neither contains it."""
    bases = (folder, folder / inner)
    return next((base for base in bases if (base / images).is_dir() and (base / classes).is_file()), None)


locate_awa2 = functools.partial(_locate, "Animals_with_Attributes2", "JPEGImages", "classes.txt")
locate_cub = functools.partial(_locate, "CUB_200_2011", "images", "image_class_labels.txt")


def open_awa2(base: Path, source: str, splits: Path | None, max_pixels: int, max_failed: float) -> Labelled:
    """Open AwA2, with 85 predicates per class. The proposed splits give unseen classes and test images.

    Without them, the classes in `testclasses.txt` are unseen, and all images are test images. Raises
    `SettingError` for missing or damaged files. Xian et al. 2018 (arXiv 1707.00600).
    """
    folders = read_names(base / "classes.txt")
    names = [folder.replace("+", " ") for folder in folders]
    label_of = {folder: label for label, folder in enumerate(folders)}
    files = [name for name in find_files(base / "JPEGImages")[1] if fits(name) == "folder"]
    if unknown := sorted({name.split("/")[0] for name in files} - set(label_of)):
        remedy = "Every folder of JPEGImages has a line in classes.txt."
        raise SettingError("source", str(base), f"{unknown[0]!r} is no class of classes.txt", remedy)
    images = [Listed(name, base / "JPEGImages" / name, label_of[name.split("/")[0]]) for name in files]
    unseen, test, absent = _split("AWA2", base, splits, folders, files)
    if test is None and (base / "testclasses.txt").is_file():
        held_out = set(read_lines(base / "testclasses.txt"))
        unseen = np.array([folder in held_out for folder in folders])
    pairs, labels, kept = open_images(source, images, names, max_pixels, max_failed, absent)
    test = None if test is None else test[kept]
    return Labelled(pairs, labels, names, PHOTO_TEMPLATES, _predicates(base, len(names)), unseen, test)


def open_cub(base: Path, source: str, splits: Path | None, max_pixels: int, max_failed: float) -> Labelled:
    """Open CUB-200-2011, with 312 attributes in 28 groups, known for an image unless the annotator guessed.

    The proposed splits give unseen classes and test images. Without them no class is unseen, and the test
    images are those of `train_test_split.txt`. Raises `SettingError` for missing or damaged files.
    Wah et al. 2011.
    """
    folders = read_names(base / "classes.txt")
    names = [" ".join(re.sub(r"^\d+\.", "", folder).replace("_", " ").split()) for folder in folders]
    paths = read_numbered(base / "images.txt")
    label_of = read_numbered(base / "image_class_labels.txt")
    images: dict[str, Listed] = {}
    numbers, lost = [], Counter[str]()
    for number, name in paths.items():
        label = label_of.get(number, "")
        if not label.isdigit() or not 1 <= int(label) <= len(names):
            problem = f"image {number} has the label {label!r}"
            raise SettingError("source", str(base), problem, "Labels count from 1.")
        try:
            if os.path.isabs(name) or ".." in Path(name).parts:
                raise BadSample("path leaves the image folder")
            if name in images:
                raise BadSample("duplicate id")
            check_file(base / "images" / name)
        except BadSample as error:
            lost[error.reason] += 1
        else:
            numbers.append(number)
            images[name] = Listed(name, base / "images" / name, int(label) - 1)
    unseen, test, _ = _split("CUB", base, splits, folders, list(images))
    if test is None and (base / "train_test_split.txt").is_file():
        training = read_numbered(base / "train_test_split.txt")
        test = np.array([training.get(number) == "0" for number in numbers])
    pairs, labels, kept = open_images(source, list(images.values()), names, max_pixels, max_failed, lost)
    attributes = _bird_attributes(base, len(names), [numbers[position] for position in kept], labels)
    test = None if test is None else test[kept]
    return Labelled(pairs, labels, names, BIRD_TEMPLATES, attributes, unseen, test)


def _split(
    name: str, base: Path, splits: Path | None, folders: list[str], files: list[str]
) -> tuple[np.ndarray | None, np.ndarray | None, Counter[str]]:
    """The unseen classes and test images of the proposed splits, if any, and a count of missing test
    images."""
    folder = find_proposed_split(name, [base, base.parent] if splits is None else [splits])
    if folder is None:
        if splits is not None:
            problem = f"no xlsa17/data/{name}/att_splits.mat there"
            raise SettingError("splits", str(splits), problem, "Give the folder that xlsa17.zip unpacks to.")
        return None, None, Counter()
    split = read_proposed_split(folder)
    if missing := sorted(set(folders) - split.seen - split.unseen):
        problem = f"{missing[0]} is neither seen nor unseen there"
        raise SettingError("splits", str(folder), problem, f"Take the folder of {name}.")
    test = np.array([file in split.test for file in files])
    if not test.any():
        raise SettingError("splits", str(folder), "none of its images is there", "Take the same release.")
    absent = len(split.test) - int(test.sum())
    unseen = np.array([folder in split.unseen for folder in folders])
    return unseen, test, Counter({"missing file": absent} if absent else {})


def _predicates(base: Path, classes: int) -> Attributes | None:
    if not (base / "predicates.txt").is_file():
        return None
    predicates = read_names(base / "predicates.txt")
    binary = read_matrix(base / "predicate-matrix-binary.txt", classes, len(predicates))
    has = np.where(np.isin(binary, (0, 1)), binary, np.nan).astype(np.float32)
    strength: Known = has
    if (base / "predicate-matrix-continuous.txt").is_file():
        percent = read_matrix(base / "predicate-matrix-continuous.txt", classes, len(predicates))
        strength = np.where(percent < 0, has, percent / np.float32(100))  # -1: the annotators were not asked
    return Attributes(
        names=[_ANIMAL_WORDS.get(predicate, predicate) for predicate in predicates],
        groups=[None] * len(predicates),
        template="a photo of an animal: {}.",
        plain="a photo of an animal.",
        of_class=has,
        strength=strength,
    )


def _bird_attributes(base: Path, classes: int, numbers: list[int], labels: np.ndarray) -> Attributes | None:
    folders = (base / "attributes", base, base.parent)
    paths = [folder / "attributes.txt" for folder in folders if (folder / "attributes.txt").is_file()]
    if not paths:
        if not (base / "attributes").is_dir():
            return None
        remedy = "It comes with CUB_200_2011.tgz, beside the folder CUB_200_2011."
        raise SettingError("source", str(base), "there are attributes, and no attributes.txt", remedy)
    words = [bird_words(name) for name in read_names(paths[0])]
    of_image = _image_attributes(base / "attributes" / "image_attribute_labels.txt", numbers, len(words))
    continuous = base / "attributes" / "class_attribute_labels_continuous.txt"
    if continuous.is_file():
        strength: Known = read_matrix(continuous, classes, len(words)) / np.float32(100)
    else:
        strength = _shares(of_image, labels, classes)
    return Attributes(
        names=[phrase for _, phrase in words],
        groups=[group for group, _ in words],
        template="a photo of a bird that has {}.",
        plain="a photo of a bird.",
        of_class=np.where(np.isnan(strength), np.nan, strength >= 0.5).astype(np.float32),
        strength=strength.astype(np.float32),
        of_image=of_image,
    )


def bird_words(name: str) -> tuple[str | None, str]:
    """The group of a CUB attribute and its words in a sentence: ("wing color", "blue wing").

    "has_wing_color::blue", "has_size::large_(16_-_32_in)"; None for an attribute without a group.
    """
    words = re.sub(r"\([^)]*\)", " ", name.removeprefix("has_").replace("_", " "))
    group, _, value = (" ".join(part.split()) for part in words.rpartition("::"))
    if not group:
        return None, value
    part = group if group == "primary color" else group.removesuffix(" color")
    if group.endswith(" length"):  # "longer than head"
        return group, f"{group.removesuffix(' length')} {value}"
    last = re.split(r"[ -]", value)[-1]
    if last.rstrip("s") == part.split()[0]:  # "forked tail", "rounded-wings"
        return group, value.replace(f"-{last}", f" {last}")
    return group, f"{value.removesuffix(f' {part.split()[-1]}')} {part}"


def _image_attributes(path: Path, numbers: list[int], attributes: int) -> Known:
    """Image attributes [N, A] from lines of image, attribute, present, certainty and further columns.

    Some lines of the released file have an extra column, but the first four columns are always correct.
    """
    import pandas

    try:
        if not check_file(path):
            raise BadSample("empty file")
        lines = np.loadtxt(path, dtype=np.int64, usecols=range(4), ndmin=2, encoding="utf-8")
    except (BadSample, ValueError, OSError) as error:
        remedy = "It has image, attribute, present, certainty and time a line."
        raise SettingError("source", str(path), f"cannot be read ({error})", remedy) from error
    image, attribute, present, certainty = lines.T
    row = pandas.Index(numbers).get_indexer(image)  # -1: the image is missing
    known = (row >= 0) & (attribute >= 1) & (attribute <= attributes)
    known &= (certainty >= CERTAIN) & np.isin(present, (0, 1))
    of_image = np.full((len(numbers), attributes), np.nan, dtype=np.float32)
    of_image[row[known], attribute[known] - 1] = present[known]
    return of_image


def _shares(of_image: Known, labels: np.ndarray, classes: int) -> Known:
    """The share of each class's images with known values that have an attribute, [classes, A]."""
    import pandas

    shares = pandas.DataFrame(of_image, dtype=np.float64).groupby(labels).mean().reindex(range(classes))
    return shares.to_numpy(np.float32)
