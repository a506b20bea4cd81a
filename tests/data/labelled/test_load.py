from pathlib import Path

import numpy as np
import pytest

from tests.data.labelled.zero_shot_layouts import write_awa2, write_cub
from tests.data.samples import encoded, shows
from workbench.data.decode import BadSample
from workbench.data.labelled.load import load_labelled
from workbench.data.load import load_pairs
from workbench.errors import SettingError


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    for number, name in enumerate(
        ["golden_retriever/b.jpg", "cat/x/a.JPG", "cat/c.png", "golden_retriever/a.jpg"]
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(number, "PNG" if name.endswith("png") else "JPEG"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "stray.jpg").write_bytes(encoded(9))
    animals = load_labelled(tmp_path)
    assert animals.class_names == ["cat", "golden retriever"]
    assert animals.pairs.ids == [
        "cat/c.png",
        "cat/x/a.JPG",
        "golden_retriever/a.jpg",
        "golden_retriever/b.jpg",
    ]
    assert animals.labels.tolist() == [0, 0, 1, 1] and animals.labels.dtype == np.int64
    assert [shows(animals.image(row), number) for row, number in enumerate((2, 1, 3, 0))] == [True] * 4
    assert animals.prompts()[1][0] == "a photo of a golden retriever." and len(animals) == 4


def test_bad_images_are_reasons(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(b"")
    with pytest.raises(BadSample, match="empty file"):
        load_labelled(tmp_path).image(0)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(1))
    with pytest.raises(SettingError, match="no sub-folders with images"):
        load_labelled(tmp_path)


@pytest.mark.parametrize(("view", "column"), [("names", "objects"), ("categories", "categories")])
def test_views_of_the_scenes(view: str, column: str) -> None:
    options = {"scenes": 60, "image_size": 32}
    labelled = load_labelled(f"scenes:train/{view}", **options)
    pairs = load_pairs("scenes", "train", **options)
    shown = pairs.table[column].to_pylist()
    single = [row for row in range(len(pairs)) if len(shown[row]) == 1]
    assert labelled.pairs.ids == [pairs.ids[row] for row in single] and len(single) > 3
    assert len(labelled.class_names) == len({name for names in shown for name in names})
    for row, origin in enumerate(single):
        assert labelled.class_names[labelled.labels[row]].endswith(shown[origin][0])
        assert (labelled.image(row) == pairs.image(origin)).all()


def test_unknown_views_are_refused() -> None:
    with pytest.raises(SettingError, match="names, categories"):
        load_labelled("scenes:test/colours")
    with pytest.raises(SettingError, match="no such split"):
        load_labelled("scenes:nowhere/names")


def test_prefixes_say_what_a_folder_holds(tmp_path: Path) -> None:
    write_cub(tmp_path)
    assert load_labelled(tmp_path).attributes is not None
    plain = load_labelled(f"folder:{tmp_path / 'CUB_200_2011' / 'images'}")
    assert plain.attributes is None and plain.class_names[0] == "Black footed Albatross"
    for kind in ("awa2", "cifar10", "cifar100"):
        with pytest.raises(SettingError, match=r"does not contain this set\. Its folder contains"):
            load_labelled(f"{kind}:{tmp_path}")
    with pytest.raises(SettingError, match="does not contain this set"):
        load_labelled(f"cub:{tmp_path / 'nowhere'}")
    with pytest.raises(SettingError, match="They are for AwA2 and CUB"):
        load_labelled(tmp_path / "CUB_200_2011" / "images", splits=tmp_path)


def test_two_sets_in_one_folder_want_a_prefix(tmp_path: Path) -> None:
    write_cub(tmp_path)
    write_awa2(tmp_path)
    with pytest.raises(SettingError, match=rf"it contains awa2 and cub\. Say which: awa2:{tmp_path}, cub:"):
        load_labelled(tmp_path)
    assert len(load_labelled(f"awa2:{tmp_path}")) == 6


def test_scenes_bring_their_attributes() -> None:
    labelled = load_labelled("scenes:test_concepts/names")
    assert labelled.unseen.all() and labelled.attributes.of_image.shape[0] == len(labelled)


def test_scenes_of_a_size_of_their_own() -> None:
    labelled = load_labelled("scenes:test/names@40", image_size=32)
    assert labelled.pairs.image(0).shape == (3, 40, 40)
    with pytest.raises(SettingError, match=r"@big.*pixels.*@64"):
        load_labelled("scenes:test/names@big")
