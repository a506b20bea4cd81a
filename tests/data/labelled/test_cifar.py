import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.data.labelled.zero_shot_layouts import cifar_pixels, python2_pickle
from workbench.data.labelled.cifar import CIFAR_TEMPLATES
from workbench.data.labelled.load import load_labelled
from workbench.errors import SettingError

NAMES = [b"airplane", b"maple_tree", b"cat"]
LABELS = [2, 0, 1, 1]
META = {b"num_cases_per_batch": 10000, b"label_names": NAMES, b"num_vis": 3072}
META100 = {b"fine_label_names": NAMES, b"coarse_label_names": [b"thing"]}


def batch(labels: object = LABELS, data: object = None, key: bytes = b"labels") -> dict[bytes, object]:
    data = cifar_pixels(4) if data is None else data
    return {b"batch_label": b"testing batch 1 of 1", key: labels, b"data": data, b"filenames": [b"a.png"] * 4}


def write(folder: Path, images: bytes, names: bytes, place: str = "cifar-10-batches-py/test_batch") -> Path:
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_bytes(images)
    meta = {"test_batch": "batches.meta", "test": "meta"}[place.split("/")[1]]
    (folder / place).with_name(meta).write_bytes(names)
    return folder


def check(source: str | Path) -> None:
    result = load_labelled(source)
    assert result.class_names == ["airplane", "maple tree", "cat"] and result.labels.tolist() == LABELS
    assert result.labels.dtype == np.int64 and result.pairs.captions(0) == ["cat"]
    for row in range(4):
        assert (result.image(row).numpy() == cifar_pixels(4)[row].reshape(3, 32, 32)).all()
    assert result.templates == CIFAR_TEMPLATES and len(set(CIFAR_TEMPLATES)) == 18
    assert pickle.loads(pickle.dumps(result.pairs)).image(1).shape == (3, 32, 32)  # goes to loader processes


def test_our_pickles_are_what_python_2_wrote() -> None:
    wrote = pickle.loads(python2_pickle(batch()), encoding="bytes")
    assert wrote[b"labels"] == LABELS and (wrote[b"data"] == cifar_pixels(4)).all()


def test_cifar10_from_python(tmp_path: Path) -> None:
    write(tmp_path, python2_pickle(batch()), python2_pickle(META))
    for source in (tmp_path, tmp_path / "cifar-10-batches-py", f"cifar10:{tmp_path}"):
        check(source)


def test_cifar100_from_python_with_fine_labels(tmp_path: Path) -> None:
    images = batch(key=b"fine_labels") | {b"coarse_labels": [0] * 4}
    write(tmp_path, python2_pickle(images), python2_pickle(META100), "cifar-100-python/test")
    check(tmp_path)


def test_pickles_written_anew_by_python_3(tmp_path: Path) -> None:
    text = {"labels": LABELS, "data": cifar_pixels(4)}
    names = {"label_names": ["airplane", "maple_tree", "cat"]}
    check(write(tmp_path, pickle.dumps(text, protocol=4), pickle.dumps(names, protocol=4)))


@pytest.mark.parametrize(("folder", "extra"), [("cifar-10-batches-bin", 0), ("cifar-100-binary", 1)])
def test_binary_versions(tmp_path: Path, folder: str, extra: int) -> None:
    base = tmp_path / folder
    base.mkdir()
    records = [
        bytes([9] * extra + [label]) + pixels.tobytes()
        for label, pixels in zip(LABELS, cifar_pixels(4), strict=True)
    ]
    (base / ("test.bin" if extra else "test_batch.bin")).write_bytes(b"".join(records))
    names = base / ("fine_label_names.txt" if extra else "batches.meta.txt")
    names.write_text("airplane\nmaple_tree\ncat\n\n")  # the released file ends in an empty line
    check(tmp_path)
    (base / ("test.bin" if extra else "test_batch.bin")).write_bytes(b"".join(records)[:-1])
    with pytest.raises(SettingError, match="no whole number of records"):
        load_labelled(tmp_path)


class Attack:
    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        return self.call[0], tuple(self.call[1:])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_that_call_anything_are_refused_before_it_runs(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "mark"
    for attack in (Attack(os.system, f"touch {mark}"), Attack(eval, "1"), Attack(getattr, "", "upper")):
        write(tmp_path, pickle.dumps({"data": attack}, protocol=protocol), python2_pickle(META))
        with pytest.raises(SettingError, match=r"it asks for (posix|nt|builtins|__builtin__)\."):
            load_labelled(tmp_path)
        write(tmp_path, python2_pickle(batch()), pickle.dumps(attack, protocol=protocol))
        with pytest.raises(SettingError, match="it asks for"):
            load_labelled(tmp_path)
    assert not mark.exists()


def test_other_names_of_numpy_are_refused_too(tmp_path: Path) -> None:
    for name in (b"numpy\nload\n", b"numpy.core.multiarray\nfromfile\n", b"numpy\nndarray.tofile\n"):
        write(tmp_path, b"\x80\x04c" + name + b".", python2_pickle(META))
        with pytest.raises(SettingError, match="it asks for numpy"):
            load_labelled(tmp_path)


@pytest.mark.parametrize(
    "images",
    [
        b"",
        b"\x80\x02}.",
        python2_pickle([1]),
        python2_pickle(batch())[:-3000],
        python2_pickle(batch(labels=[0, 1, 2, 3])),
        python2_pickle(batch(labels=[0, 1, 2, -1])),
        python2_pickle(batch(labels=[0, 1, 2])),
        python2_pickle(batch(labels=[b"a"] * 4)),
        python2_pickle(batch(labels=[])),
        python2_pickle(batch(data=b"bytes")),
        python2_pickle(batch(data=cifar_pixels(4).astype(np.float32))),
        python2_pickle(batch(data=cifar_pixels(4)[:, :3000].copy())),
        b"\x80\x02}(" + b"T\x04\x00\x00\x00data" + b"cnumpy\nndarray\n)R" + b"u.",
    ],
)
def test_damaged_batches(tmp_path: Path, images: bytes) -> None:
    write(tmp_path, images, python2_pickle(META))
    with pytest.raises(SettingError, match="no file of CIFAR"):
        load_labelled(tmp_path)


def test_both_in_one_folder_want_a_prefix(tmp_path: Path) -> None:
    write(tmp_path, python2_pickle(batch()), python2_pickle(META))
    images = python2_pickle(batch(key=b"fine_labels"))
    write(tmp_path, images, python2_pickle(META100), "cifar-100-python/test")
    with pytest.raises(SettingError, match=f"Say which: cifar10:{tmp_path}, cifar100:"):
        load_labelled(tmp_path)
    check(f"cifar100:{tmp_path}")
