"""Tiny zero-shot sets in the layouts that their authors distribute: AwA2, CUB, the proposed splits, CIFAR."""

import struct
from pathlib import Path

import numpy as np
from scipy.io import savemat

from tests.data.samples import encoded

ANIMALS = ("antelope", "grizzly+bear", "killer+whale")
PREDICATES = ("black", "longneck", "flys", "ocean")
BINARY = ("1 1 0 0", "1 0 0 0", "1 0 0 1")
CONTINUOUS = ("  60.00  90.00   0.00   0.00", "40.00 -1.00 0.00 1.25", "80.00 0.00 0.00 95.00")

BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
BIRD_IMAGES = tuple(f"{bird}/{bird[4:]}_{number:04d}.jpg" for bird in BIRDS for number in (1, 2))
BIRD_ATTRIBUTES = (
    "has_bill_shape::curved_(up_or_down)",
    "has_bill_shape::hooked",
    "has_wing_color::blue",
    "has_wing_color::grey",
    "has_tail_shape::forked_tail",
)
# Of image 1 to 4 and attribute 1 to 5: present, certainty.
BIRD_LABELS = (
    ("1 4", "0 4", "1 3", "0 1", "1 2"),
    ("1 3", "0 3", "0 4", "1 4", "1 4"),
    ("0 4", "1 4", "0 3", "0 3", "0 4"),
    ("0 4", "0 2", "1 4", "0 3", "0 4"),
)


def write_awa2(folder: Path) -> Path:
    """Six pictures of three animals, numbered from 0 in the order of their names."""
    base = folder / "Animals_with_Attributes2"
    for number in range(6):
        animal = ANIMALS[number // 2]
        place = base / "JPEGImages" / animal / f"{animal}_{10001 + number % 2}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encoded(number))
    write_lines(base / "classes.txt", [f"{number:>6}\t{name}" for number, name in enumerate(ANIMALS, 1)])
    write_lines(
        base / "predicates.txt", [f"{number:>6}\t{name}" for number, name in enumerate(PREDICATES, 1)]
    )
    write_lines(base / "predicate-matrix-binary.txt", BINARY)
    write_lines(base / "predicate-matrix-continuous.txt", CONTINUOUS)
    write_lines(base / "trainclasses.txt", ANIMALS[:2])
    write_lines(base / "testclasses.txt", ANIMALS[2:])
    return base


def write_cub(folder: Path) -> Path:
    """Four pictures of two birds, as CUB_200_2011.tgz unpacks: attributes.txt lies beside the folder."""
    base = folder / "CUB_200_2011"
    for number, name in enumerate(BIRD_IMAGES):
        (base / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (base / "images" / name).write_bytes(encoded(number))
    write_lines(base / "images.txt", [f"{number} {name}" for number, name in enumerate(BIRD_IMAGES, 1)])
    write_lines(base / "image_class_labels.txt", ["1 1", "2 1", "3 2", "4 2"])
    write_lines(base / "classes.txt", [f"{number} {name}" for number, name in enumerate(BIRDS, 1)])
    write_lines(base / "train_test_split.txt", ["1 1", "2 0", "3 1", "4 0"])
    write_lines(folder / "attributes.txt", [f"{n} {name}" for n, name in enumerate(BIRD_ATTRIBUTES, 1)])
    lines = [
        f"{image} {attribute} {labels[attribute - 1]} 12.{image}"
        for image, labels in enumerate(BIRD_LABELS, 1)
        for attribute in range(1, 6)
    ]
    lines[7] += " 3.2"  # the released file has some lines with a column too many
    write_lines(base / "attributes" / "image_attribute_labels.txt", lines)
    certainties = ["1 not visible", "2 guessing", "3 probably", "4 definitely"]
    write_lines(base / "attributes" / "certainties.txt", certainties)
    shares = ["90.5 5.0 60.0 40.0 80.0", "0.0 70.0 55.0 30.0 0.0"]
    write_lines(base / "attributes" / "class_attribute_labels_continuous.txt", shares)
    return base


def write_proposed_split(
    folder: Path,
    name: str,
    files: list[str],
    trainval: list[int],
    test_seen: list[int],
    test_unseen: list[int],
) -> Path:
    """xlsa17/data/NAME with MATLAB's cells and columns; indices count from 1 into `files`."""
    place = folder / "xlsa17" / "data" / name
    place.mkdir(parents=True, exist_ok=True)
    root = "/BS/Deep_Fragments/work/MSc/CUB//"
    cells = np.empty((len(files), 1), dtype=object)
    cells[:, 0] = [root + file for file in files]
    features = np.zeros((2048, len(files)))
    labels = np.ones((len(files), 1), np.uint8)
    savemat(place / "res101.mat", {"features": features, "image_files": cells, "labels": labels})
    columns = {"trainval_loc": trainval, "test_seen_loc": test_seen, "test_unseen_loc": test_unseen}
    classes = sorted({file.split("/")[-2] for file in files})
    names = np.empty((len(classes), 1), dtype=object)
    names[:, 0] = classes
    numbers = {key: np.array(value, np.uint16)[:, None] for key, value in columns.items()}
    savemat(place / "att_splits.mat", {"allclasses_names": names, "att": np.zeros((85, 3)), **numbers})
    return place


def cifar_pixels(count: int) -> np.ndarray:
    """uint8 [count, 3072], different in every image, row and colour."""
    return np.random.default_rng(0).integers(0, 256, (count, 3072)).astype(np.uint8)


def python2_pickle(value: object) -> bytes:
    """The value as Python 2 pickled it (protocol 2): strings as byte strings, arrays by numpy.core."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: object) -> bytes:
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(_python2(item) for item in value) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_python2(key) + _python2(item) for key, item in value.items()) + b"u"
    assert isinstance(value, np.ndarray) and value.ndim == 2
    kind = b"cnumpy\ndtype\n(" + _python2(value.dtype.str.lstrip("|<").encode()) + b"K\x00K\x01tR"
    kind += b"(K\x03" + _python2(value.dtype.str[:1].encode()) + b"NNN" + _python2(-1) * 2 + b"K\x00tb"
    new = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + _python2(b"b") + b"tR"
    shape = b"(" + b"".join(_python2(side) for side in value.shape) + b"t"
    return new + b"(K\x01" + shape + kind + b"\x89" + _python2(value.tobytes()) + b"tb"


def write_lines(path: Path, lines: list[str] | tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
