"""A zero-shot set once it is open: images, labels, class names, templates, and attributes."""

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
    """What the classes of a zero-shot set, or its single images, are known to have.

    `names` [A] are words that fit a sentence ("long neck", "blue wing"), `groups` [A] what each is a value of
    ("wing color"), None where it stands alone. `template` names one or several of them, with commas, at its
    `{}`, and `plain` names none. `of_class` [classes, A] and `of_image` [N, A] hold 1, 0, or NaN where
    unknown; a set has at least one of them. `strength` [classes, A] goes with `of_class`: how strongly, or in
    what share of its images, a class has it, 0 to 1.
    """

    names: list[str]
    groups: list[str | None]
    template: str
    plain: str
    of_class: Known | None = None
    strength: Known | None = None
    of_image: Known | None = None

    def sentence(self, chosen: Sequence[int]) -> str:
        """The prompt that names these attributes, by number, and no class."""
        if not len(chosen):
            return self.plain
        return self.template.format(", ".join(self.names[number] for number in chosen))


@dataclass(frozen=True)
class Labelled:
    """Images with integer labels; `pairs` holds them with their class name as the caption.

    `labels` [N] index `class_names`, which fit the one `{}` of each of `templates`. Where the set defines
    them, `unseen` [classes] marks the classes that zero-shot learners never train on, and `test` [N] the
    images that results are reported on.
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
        """The image of a row, uint8 [3, H, W]; raises `BadSample` where it cannot be read."""
        return self.pairs.image(row)

    def prompts(self) -> list[list[str]]:
        """Every template filled with every class name, [classes][templates]."""
        return [[template.format(name) for template in self.templates] for name in self.class_names]

    def select(self, rows: RowNumbers) -> "Labelled":
        """The images of `rows`, in that order; the classes stay as they are."""
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
        """The images that results are reported on: all, where the set defines none."""
        return self if self.test is None else self.select(np.flatnonzero(self.test))

    def attributes_of_images(self) -> Known:
        """What every image is known to have, [N, A]: its own attributes, else those of its class.

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
    """The images as pairs, each with its class name as the caption, with their labels and positions.

    `rejected` counts those rejected before. Raises `SettingError` where no image is usable, or where more
    than `max_failed` of all are rejected.
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
    """The images in sub-folders of a folder, relative to it, and the sub-folders' sorted names."""
    files = [name for name in find_files(base)[1] if fits(name) == "folder" and "/" in name]
    return files, sorted({name.split("/")[0] for name in files})


def read_lines(path: Path) -> list[str]:
    """The lines of a small text file that are not empty; raises `SettingError` where it cannot be read."""
    try:
        text = read_file(path, LARGEST_LIST).decode("utf-8-sig")
    except (BadSample, UnicodeError) as error:
        raise SettingError("source", str(path), str(error), "The set needs this text file.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_numbered(path: Path) -> dict[int, str]:
    """A text file with a number and something else a line ("12 blue"), in its order.

    Raises `SettingError` for other lines and for a number that comes twice.
    """
    names: dict[int, str] = {}
    for line in read_lines(path):
        match = re.fullmatch(r"([0-9]{1,9})\s+(.+)", line)
        if match is None or int(match[1]) in names:
            remedy = "It has a number of its own and a name a line, such as '12 blue'."
            raise SettingError("source", str(path), f"it has a line {line[:80]!r}", remedy)
        names[int(match[1])] = match[2]
    return names


def read_names(path: Path) -> list[str]:
    """The names in a text file that numbers them from 1; raises `SettingError` for other numbers."""
    names = read_numbered(path)
    if list(names) != list(range(1, len(names) + 1)):
        problem = "its lines are not numbered from 1"
        raise SettingError("source", str(path), problem, "Take the released file.")
    return list(names.values())


def read_matrix(path: Path, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """A text file of numbers as [rows, columns]; raises `SettingError` for any other number of them."""
    words = " ".join(read_lines(path)).split()
    try:
        return np.array([float(word) for word in words], np.float32).reshape(rows, columns)
    except ValueError as error:
        problem = f"not {rows} rows of {columns} numbers ({error})"
        raise SettingError("source", str(path), problem, "Take the file of the same release.") from error
