"""An opened zero-shot set: images, labels, class names, templates and attributes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from workbench.data.decode import BadSample
from workbench.data.discovery import find_files, fits
from workbench.data.pairs import Pairs, RowNumbers
from workbench.data.source import PairRows, read_file
from workbench.errors import SettingError

PHOTO_TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "{}")
LARGEST_LIST = 64 << 20  # bytes of a text file that lists images or classes
Known = npt.NDArray[np.float32]  # 1: has it, 0: has it not, NaN: unknown


@dataclass(frozen=True)
class Attributes:
    """The known attributes of the classes of a zero-shot set, or of its images.

    `names` [A] are phrases that fit a sentence ("long neck", "blue wing"). `groups` [A] names the property
    that each is a value of ("wing color"), None for an attribute without a group. `template` takes one or
    several names, separated by commas, at its `{}`; `plain` is the sentence without any. `of_class`
    [classes, A] and `of_image` [N, A] hold 1, 0, or NaN for unknown; a set has at least one of the two.
    `strength` [classes, A] accompanies `of_class`: how strongly a class has the attribute, or in what share
    of its images, 0 to 1.
    """

    names: list[str]
    groups: list[str | None]
    template: str
    plain: str
    of_class: Known | None = None
    strength: Known | None = None
    of_image: Known | None = None

    def sentence(self, chosen: Sequence[int]) -> str:
        """The prompt that names the attributes with these indices, and no class."""
        if not len(chosen):
            return self.plain
        return self.template.format(", ".join(self.names[number] for number in chosen))


@dataclass(frozen=True)
class Labelled:
    """Images with integer labels. `pairs` holds them with their class names as captions.

    `labels` [N] index `class_names`, which fit the `{}` in each of `templates`. If the set defines them,
    `unseen` [classes] marks the classes that zero-shot learners never train on, and `test` [N] the images
    that results are reported on.
    """

    pairs: Pairs
    labels: npt.NDArray[np.int64]
    class_names: list[str]
    templates: tuple[str, ...]
    attributes: Attributes | None = None
    unseen: npt.NDArray[np.bool_] | None = None
    test: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, row: int) -> torch.Tensor:
        """The image of a row, uint8 [3, H, W]. Raises `BadSample` if it cannot be read."""
        return self.pairs.image(row)

    def prompts(self) -> list[list[str]]:
        """Every template filled with every class name, [classes][templates]."""
        return [[template.format(name) for template in self.templates] for name in self.class_names]

    def select(self, rows: RowNumbers) -> "Labelled":
        """The images of `rows`, in that order. The classes stay the same."""
        chosen = np.asarray(rows, dtype=np.int64).reshape(-1)
        attributes = self.attributes
        if attributes is not None and attributes.of_image is not None:
            attributes = replace(attributes, of_image=attributes.of_image[chosen])
        return replace(
            self,
            pairs=self.pairs.select(chosen),
            labels=self.labels[chosen],
            attributes=attributes,
            test=None if self.test is None else self.test[chosen],
        )

    def for_testing(self) -> "Labelled":
        """The images that results are reported on; all images if the set defines none."""
        return self if self.test is None else self.select(np.flatnonzero(self.test))

    def attributes_of_images(self) -> Known:
        """The known attributes of every image, [N, A]: its own, otherwise those of its class.

        Raises ValueError for a set without attributes.
        """
        if self.attributes is not None and self.attributes.of_image is not None:
            return self.attributes.of_image
        if self.attributes is None or self.attributes.of_class is None:
            raise ValueError(f"{self.pairs.name} has no attributes")
        return self.attributes.of_class[self.labels]


@dataclass(frozen=True)
class Listed:
    """One image of a zero-shot set before it is opened."""

    id: str
    path: Path
    label: int


def open_images(
    source: str,
    images: Sequence[Listed],
    class_names: Sequence[str],
    max_pixels: int,
    max_failed: float,
    rejected: Mapping[str, int] | None = None,
) -> tuple[Pairs, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Open images as pairs with their class names as captions. Returns pairs, labels [N] and positions [N].

    `rejected` counts images that were rejected before. Raises `SettingError` if no image is usable or if more
    than the share `max_failed` of all is rejected.
    """
    rows, kept = PairRows(rejected), []
    for position, image in enumerate(images):
        with rows.count_rejected(image.id):
            rows.add(image.id, [class_names[image.label]], None, str(image.path))
            kept.append(position)
    lost, total = rows.lost, len(kept) + rows.lost.total()
    if not kept or lost.total() > max_failed * total:
        reasons = lost.described()
        problem = f"{lost.total()} of {total} images cannot be used ({reasons or 'there are none'})"
        remedy = f"Repair or add them, or raise max_failed (now {max_failed:g})."
        raise SettingError(
            "source", source, problem, remedy if kept else "At least one image must be usable."
        )
    opened = rows.opened(max_pixels)
    table = opened.table.drop_columns("split")
    pairs = Pairs(table, opened.read, name=source, split="all", rejected=lost, max_failed=max_failed)
    labels = np.array([images[position].label for position in kept], dtype=np.int64)
    return pairs, labels, np.array(kept, dtype=np.int64)


def class_folders(base: Path) -> tuple[list[str], list[str]]:
    """The images in sub-folders of a folder, as relative paths, and the sorted names of the sub-folders."""
    files = [name for name in find_files(base)[1] if fits(name) == "folder" and "/" in name]
    return files, sorted({name.split("/")[0] for name in files})


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a small text file. Raises `SettingError` if it cannot be read."""
    try:
        text = read_file(path, LARGEST_LIST).decode("utf-8-sig")
    except (BadSample, UnicodeError) as error:
        raise SettingError("source", str(path), str(error), "The set needs this text file.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_numbered(path: Path) -> dict[int, str]:
    """The numbers and texts in a text file with one of each a line ("12 blue"), in order.

    Raises `SettingError` for other lines and for repeated numbers.
    """
    names: dict[int, str] = {}
    for line in read_lines(path):
        match = re.fullmatch(r"([0-9]{1,9})\s+(.+)", line)
        if match is None or int(match[1]) in names:
            remedy = "Every line has a unique number and a name, such as '12 blue'."
            raise SettingError("source", str(path), f"it has a line {line[:80]!r}", remedy)
        names[int(match[1])] = match[2]
    return names


def read_names(path: Path) -> list[str]:
    """The names in a text file that numbers them from 1. Raises `SettingError` for other numbers."""
    names = read_numbered(path)
    if list(names) != list(range(1, len(names) + 1)):
        problem = "its lines are not numbered from 1"
        raise SettingError("source", str(path), problem, "Take the released file.")
    return list(names.values())


def read_matrix(path: Path, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """The numbers in a text file as [rows, columns]. Raises `SettingError` if their count differs."""
    words = " ".join(read_lines(path)).split()
    try:
        return np.array([float(word) for word in words], np.float32).reshape(rows, columns)
    except ValueError as error:
        problem = f"not {rows} rows of {columns} numbers ({error})"
        raise SettingError("source", str(path), problem, "Take the file of the same release.") from error
