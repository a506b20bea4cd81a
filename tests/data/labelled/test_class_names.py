"""Class folders as sets are published: which folders are classes, and what prompts call them."""

from pathlib import Path

import pytest

from tests.data.samples import encoded
from workbench.data.labelled.load import load_labelled
from workbench.errors import SettingError


def write(base: Path, *folders: str) -> Path:
    for folder in folders:
        (base / folder).mkdir(parents=True, exist_ok=True)
        for number in range(2):
            (base / folder / f"{number}.jpg").write_bytes(encoded(number))
    return base


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["n02085620-Chihuahua", "n02085782-Japanese_spaniel"], ["Chihuahua", "Japanese spaniel"]),
        (["001.ak47", "002.american-flag", "257.t-shirt"], ["ak47", "american flag", "t-shirt"]),
        (["AnnualCrop", "SeaLake", "Forest"], ["annual crop", "Forest", "sea lake"]),
        (["a/airfield", "a/alley", "b/bakery/shop", "b/barn"], ["airfield", "alley", "bakery shop", "barn"]),
        (["cat/images", "dog/images"], ["cat", "dog"]),
        (["train", "bus", "bicycle"], ["bicycle", "bus", "train"]),  # a vehicle
        (["train/images", "bus/images"], ["bus", "train"]),
        (["737-800 jet", "A300B4"], ["737-800 jet", "A300B4"]),  # not all are numbered
        (["golden_retriever", "cat/x", "cat"], ["cat", "golden retriever"]),
    ],
)
def test_folders_become_words(tmp_path: Path, folders: list[str], names: list[str]) -> None:
    labelled = load_labelled(write(tmp_path, *folders))
    assert sorted(labelled.class_names) == sorted(names)
    for row, identity in enumerate(labelled.pairs.ids):
        name = labelled.class_names[labelled.labels[row]]
        assert name.split()[-1].casefold()[:4] in identity.casefold()
        assert labelled.pairs.captions(row) == [name]


@pytest.mark.parametrize(
    ("folders", "choices"),
    [
        (["images/apple_pie", "images/baklava"], ["images"]),
        (["101_ObjectCategories/airplanes", "101_ObjectCategories/ant"], ["101_ObjectCategories"]),
        (["train/cat", "train/dog", "test/cat", "test/dog"], ["test", "train"]),
        (["Training/cat", "Training/dog", "VALID/cat", "VALID/dog"], ["VALID", "Training"]),
        (["data/train/cat", "data/train/dog", "data/val/cat", "data/val/dog"], ["data/val", "data/train"]),
        (["train/one/images", "train/two/images", "val/images", "test/images"], ["train"]),
        (["train/cat", "train/dog", "holdout/cat", "holdout/dog"], ["holdout", "train"]),
    ],
)
def test_a_level_too_high_is_refused_with_the_folder_to_take(
    tmp_path: Path, folders: list[str], choices: list[str]
) -> None:
    write(tmp_path, *folders)
    with pytest.raises(SettingError) as caught:
        load_labelled(tmp_path)
    assert caught.value.remedy == f"Take {' or '.join(str(tmp_path / choice) for choice in choices)}."
    assert len(load_labelled(tmp_path / choices[0]).class_names) == 2


def test_one_class_and_names_without_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"one folder 'cat', one class\. Give a folder with a sub-folder"):
        load_labelled(write(tmp_path / "one", "cat"))
    digits = write(tmp_path / "digits", "0", "1", "10", "2")
    with pytest.raises(SettingError, match=r"4 of 4 class folders have no words.*class_names\.txt"):
        load_labelled(digits)
    (digits / "class_names.txt").write_text("0 zero\n1\tone\n10 the number ten\n")
    with pytest.raises(SettingError, match="no name for 1 of 4 class folders: 2"):
        load_labelled(digits)
    (digits / "class_names.txt").write_text("0 zero\n1\tone\n10 the number ten\n2 two\n3 unused\n")
    assert load_labelled(digits).class_names == ["zero", "one", "the number ten", "two"]
    (digits / "class_names.txt").unlink()
    (digits / "class_names.json").write_text('{"0": "nought", "1": "one", "10": "ten", "2": "two"}')
    assert load_labelled(digits).class_names == ["nought", "one", "ten", "two"]
    (digits / "class_names.json").write_text('["0"]')
    with pytest.raises(SettingError, match="not a JSON object"):
        load_labelled(digits)


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    folders = "n02012849-crane", "n03126707-Crane", "n01443537-goldfish"
    with pytest.raises(
        SettingError, match=r"2 of 3 class folders have the name of another in prompts: n0201"
    ):
        load_labelled(write(tmp_path, *folders))
    (tmp_path / "class_names.txt").write_text(
        f"{folders[0]} crane, a bird\n{folders[1]} crane, a machine\n{folders[2]} goldfish\n"
    )
    assert load_labelled(tmp_path).class_names == ["goldfish", "crane, a bird", "crane, a machine"]
    with pytest.raises(SettingError, match=r"4 of 4 class folders have the name of another"):
        load_labelled(write(tmp_path / "doors", "2_door_car", "4_door_car", "2_door_van", "4_door_van"))
