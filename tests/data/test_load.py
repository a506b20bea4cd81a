import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.data.samples import HTML, bomb, encoded, shows, write_folder, write_shards
from workbench.data.decode import BadSample
from workbench.data.labelled.load import load_labelled
from workbench.data.load import available_splits, load_pairs
from workbench.data.pairs import Pairs
from workbench.data.scenes.dataset import SPLITS
from workbench.data.splits import hashed_splits
from workbench.errors import SettingError


def everything(source: Path | str, **options: object) -> Pairs:
    """A source without splits of its own as one split."""
    return load_pairs(source, val_share=0.0, test_share=0.0, **options)


def look(pairs: Pairs, row: int) -> tuple[list[str], np.ndarray]:
    """What another process sees of a row."""
    return pairs.captions(row), pairs.image(row).numpy()


# ---- folders of images


def test_a_folder_of_images_opens_as_it_lies(tmp_path: Path) -> None:
    (tmp_path / "deep er").mkdir()
    (tmp_path / ".ipynb_checkpoints").mkdir()
    for name, number in (("a.jpg", 1), ("deep er/фото 二.JPEG", 2), ("z.Png", 3), ("._a.jpg", 4)):
        (tmp_path / name).write_bytes(encoded(number, "PNG" if number == 3 else "JPEG"))
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\n  two  words \n")
    (tmp_path / "deep er/фото 二.txt").write_text("трое\n", encoding="utf-8")
    (tmp_path / "z.TXT").write_text("upper")
    (tmp_path / ".ipynb_checkpoints" / "a-checkpoint.jpg").write_bytes(b"")
    (tmp_path / "notes.md").write_text("not an image")
    pairs = everything(tmp_path)
    assert pairs.ids == ["a.jpg", "deep er/фото 二.JPEG", "z.Png"]
    assert [pairs.captions(row) for row in range(3)] == [["one", "two words"], ["трое"], ["upper"]]
    assert all(shows(pairs.image(row), row + 1) for row in range(3))
    assert pairs.name == str(tmp_path) and not pairs.rejected


def test_folder_names_of_splits_are_honoured(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2), ("test", 1)):
        write_folder(tmp_path / split, count)
    assert available_splits(tmp_path) == ["train", "val", "test"]
    assert load_pairs(tmp_path, "val").ids == ["val/000.jpg", "val/001.jpg"]
    assert len(load_pairs(tmp_path, "train")) == 4
    write_folder(tmp_path / "elsewhere", 1)
    assert load_pairs(tmp_path, "train", max_failed=0.2).rejected == {"no split": 1}
    assert load_pairs(tmp_path / "train", "train").ids != []  # a folder by itself is split by hash


def test_links_are_followed_once(tmp_path: Path) -> None:
    write_folder(tmp_path / "real", 2)
    data = tmp_path / "data"
    data.mkdir()
    (data / "linked").symlink_to(tmp_path / "real")
    (data / "linked" / "loop").symlink_to(data)
    assert everything(data).ids == ["linked/000.jpg", "linked/001.jpg"]


def test_links_to_files_elsewhere_are_not_read(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", 3)
    (tmp_path / "secret.txt").write_text("a password")
    (tmp_path / "secret.jpg").write_bytes((tmp_path / "data" / "002.jpg").read_bytes())
    for link, target in (("001.txt", "secret.txt"), ("002.jpg", "secret.jpg")):
        (tmp_path / "data" / link).unlink()
        (tmp_path / "data" / link).symlink_to(tmp_path / target)
    pairs = everything(tmp_path / "data", max_failed=1.0)
    assert pairs.ids == ["000.jpg"] and pairs.rejected == {"path leaves the image folder": 2}


def test_globs_and_braces_of_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", 2)
    write_folder(tmp_path / "b", 2)
    assert everything(f"{tmp_path}/*/*.jpg").ids == ["a/000.jpg", "a/001.jpg", "b/000.jpg", "b/001.jpg"]
    assert everything(f"{tmp_path}/{{a,b}}/001.jpg").ids == ["a/001.jpg", "b/001.jpg"]
    write_folder(tmp_path / "odd [1]", 1)
    assert everything(tmp_path / "odd [1]").ids == ["000.jpg"]  # what exists is no pattern


def test_file_names_that_are_not_unicode_are_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, 3)
    for extension, data in (("jpg", encoded(1)), ("txt", b"a caption")):
        with open(os.fsencode(tmp_path) + b"/caf\xe9." + extension.encode(), "wb") as stream:
            stream.write(data)
    assert everything(tmp_path, max_failed=0.5).rejected == {"unsafe name": 1}


# ---- damaged inputs


def damage(folder: Path) -> None:
    """One of everything that goes wrong with images and captions."""
    for name, data in (
        ("x1_truncated.jpg", encoded(1)[:300]),
        ("x2_html.jpg", HTML),
        ("x3_bomb.png", bomb()),
        ("x4_empty.jpg", b""),
    ):
        (folder / name).write_bytes(data)
        (folder / name).with_suffix(".txt").write_text("a caption")
    for name, caption in (("y1", b""), ("y2", b" \n"), ("y3", b"caf\xe9"), ("y4", b"fine\ncaf\xe9\n")):
        (folder / f"{name}.jpg").write_bytes(encoded(1))
        (folder / f"{name}.txt").write_bytes(caption)
    (folder / "y5.jpg").write_bytes(encoded(1))
    (folder / "y6.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "y6.txt").write_text("a link to nowhere")
    (folder / "y7.jpg").write_bytes(encoded(1))
    (folder / "y7.txt").symlink_to("/dev/zero")
    os.mkfifo(folder / "y8.jpg")
    (folder / "y8.txt").write_text("a pipe")
    (folder / "y9.jpg").write_bytes(encoded(1))
    (folder / "y9.txt").write_bytes("one\ntwo\n".encode("utf-16"))


def test_damage_is_counted_by_reason_below_the_threshold(tmp_path: Path) -> None:
    write_folder(tmp_path, 5)
    damage(tmp_path)
    pairs = everything(tmp_path, max_failed=0.6)
    # A half-good text file keeps its good line: nothing lost but counted.
    reasons = {"empty caption": 2, "caption not UTF-8": 3, "no caption": 1, "not a regular file": 1}
    assert pairs.rejected == reasons
    failed = {}
    for row, name in enumerate(pairs.ids):
        try:
            assert shows(pairs.image(row), int(name[:3]) if name[0] == "0" else 1)
        except BadSample as error:
            failed[name] = error.reason
    assert failed == {
        "x1_truncated.jpg": "truncated or damaged image",
        "x2_html.jpg": "not an image (looks like HTML)",
        "x3_bomb.png": "too many pixels",
        "x4_empty.jpg": "empty file",
        "y6.jpg": "missing file",
        "y8.jpg": "not a regular file",
    }


def test_damage_above_the_threshold_stops_with_the_counts(tmp_path: Path) -> None:
    write_folder(tmp_path, 5)
    damage(tmp_path)
    with pytest.raises(SettingError, match=r"6 of 18 pairs .*empty caption: 2") as caught:
        everything(tmp_path)
    assert caught.value.setting == "data.source" and "data.max_failed" in caught.value.remedy


def test_the_threshold_is_a_share(tmp_path: Path) -> None:
    write_folder(tmp_path, 99)
    (tmp_path / "bad.jpg").write_bytes(encoded(1))
    assert len(everything(tmp_path)) == 99  # 1 % of 100
    (tmp_path / "worse.jpg").write_bytes(encoded(1))
    with pytest.raises(SettingError, match="2 of 101"):
        everything(tmp_path)


# ---- splits and limits


def table_of(count: int) -> pa.Table:
    return pa.table(
        {"id": [f"image {n}" for n in range(count)], "split": pa.nulls(count, pa.string())},
        schema=pa.schema({"id": pa.string(), "split": pa.string()}),
    )


def test_hashed_splits_have_their_shares_and_stay_when_pairs_come() -> None:
    few, many = (hashed_splits(table_of(count), 0.05, 0.05) for count in (3000, 6000))
    assert (few == many[:3000]).all()
    for split, share in (("train", 0.9), ("val", 0.05), ("test", 0.05)):
        assert abs((many == split).mean() - share) < 0.01


@pytest.mark.parametrize("count", range(3, 30))
def test_small_sources_have_every_split(count: int) -> None:
    splits = hashed_splits(table_of(count), 0.05, 0.05)
    assert set(splits) == {"train", "val", "test"}
    assert set(hashed_splits(table_of(count), 0.0, 0.0)) == {"train"}


def test_splits_are_disjoint_and_complete(tmp_path: Path) -> None:
    write_folder(tmp_path, 12)
    assert available_splits(tmp_path) == ["train", "val", "test"]
    ids = [name for split in ("train", "val", "test") for name in load_pairs(tmp_path, split).ids]
    assert sorted(ids) == [f"{number:03d}.jpg" for number in range(12)]


def test_an_unknown_split_is_named_with_those_there(tmp_path: Path) -> None:
    write_folder(tmp_path, 5)
    with pytest.raises(SettingError, match=r"album.*train, val, test"):
        load_pairs(tmp_path, "album")
    assert load_pairs(tmp_path, "validation").ids == load_pairs(tmp_path, "val").ids


def test_limits_are_seeded_nested_and_in_order(tmp_path: Path) -> None:
    write_folder(tmp_path, 40)
    ids = {limit: everything(tmp_path, limit=limit).ids for limit in (5, 10, 40, 99)}
    assert [len(ids[limit]) for limit in (5, 10, 40, 99)] == [5, 10, 40, 40]
    assert set(ids[5]) < set(ids[10]) and ids[10] == sorted(ids[10])
    assert everything(tmp_path, limit=10).ids == ids[10] != everything(tmp_path, limit=10, seed=1).ids
    pairs = everything(tmp_path, limit=5)
    assert all(shows(pairs.image(row), int(pairs.ids[row][:3])) for row in range(5))
    with pytest.raises(SettingError, match=r"data\.limit"):
        everything(tmp_path, limit=0)


# ---- detection


def test_what_cannot_be_opened_says_what_would_work(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no such file or folder.*scenes"):
        load_pairs(tmp_path / "nothing")
    with pytest.raises(SettingError, match="found no files"):
        load_pairs(tmp_path)
    (tmp_path / "a.jpg").write_bytes(encoded(1))
    (tmp_path / "b.md").write_text("")
    with pytest.raises(SettingError, match=r"1 \.jpg, 1 \.md, none of the images with a \.txt") as caught:
        load_pairs(tmp_path)
    assert caught.value.setting == "data.source" and "shards" in caught.value.remedy
    with pytest.raises(SettingError, match=r"no file in it fits data\.format = shards"):
        load_pairs(tmp_path, format="shards")
    with pytest.raises(SettingError, match=r"data\.format"):
        load_pairs(tmp_path, format="webdataset")
    with pytest.raises(SettingError, match="nothing matches"):
        load_pairs(f"{tmp_path}/{{0..3}}.tar")
    with pytest.raises(SettingError, match=r"data\.image_folder"):
        load_pairs(tmp_path, image_folder=tmp_path / "none")


def test_several_tables_in_a_folder_are_not_guessed_at(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("image,caption\n")
    with pytest.raises(SettingError, match="2 files could be meant"):
        load_pairs(tmp_path)


def test_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "pictures", 3)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(everything("~/pictures")) == 3
    assert len(everything("~/pict*/*.jpg")) == 3


def test_relative_sources_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "pictures", 3)
    write_shards(tmp_path / "shards", 2, 2)
    monkeypatch.chdir(tmp_path)
    assert everything("pictures").ids == ["000.jpg", "001.jpg", "002.jpg"]
    assert len(everything("shards/{00000..00001}.tar")) == 4
    assert shows(everything("*/00001.tar").image(1), 3)


# ---- the embedded dataset, and other processes


def test_scenes_open_by_name() -> None:
    pairs = load_pairs("scenes", "train", scenes=8, image_size=32)
    assert len(pairs) == 8 and pairs.image(0).shape == (3, 32, 32)
    assert available_splits("scenes", scenes=8) == list(SPLITS)
    assert len(load_pairs("scenes", "train", scenes=8, image_size=32, limit=3)) == 3
    assert len(load_pairs("scenes", "train", format="scenes", scenes=8, image_size=32)) == 8
    with pytest.raises(SettingError, match="not the embedded dataset"):
        load_pairs("pictures", format="scenes")


def test_a_folder_named_scenes_opens_where_the_format_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "scenes", 3)
    monkeypatch.chdir(tmp_path)
    assert len(everything("scenes", format="folder")) == 3


def test_pairs_work_in_a_spawned_process(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", 4)
    write_shards(tmp_path / "shards")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for kind in ("folder", "shards"):
            pairs = everything(tmp_path / kind)
            pairs.image(0)  # what is open here has to open again there
            captions, image = pool.apply(look, (pairs, 3))
            assert captions == pairs.captions(3) and np.array_equal(image, pairs.image(3))


@pytest.mark.parametrize("open_source", [load_pairs, load_labelled])
@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5000])
def test_what_no_file_can_be_called_is_told(open_source: Callable[[str], object], name: str) -> None:
    with pytest.raises(SettingError, match=r"no such file or folder|cannot be the name of"):
        open_source(name)


def test_a_range_of_very_many_files_is_refused() -> None:
    with pytest.raises(SettingError, match=r"its range has 100,000,000 files"):
        load_pairs("a/{0..99999999}.tar")
    with pytest.raises(SettingError, match=r"nothing matches 'a/0\.tar'"):
        load_pairs("a/{0..999999}.tar")
