from pathlib import Path

import open_clip
import pytest

from tests.data.samples import encoded, shows
from workbench.data.labelled.load import load_labelled
from workbench.errors import SettingError


def write_classes(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        (folder / name / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(encoded(number))


def test_some_class_folders_have_their_names_and_imagenets_order(tmp_path: Path) -> None:
    write_classes(tmp_path / "val", ["n07753592", "n01440764", "n15075141", "n02123045"])
    for source in (tmp_path, tmp_path / "val", f"imagenet:{tmp_path}"):
        result = load_labelled(source)
        assert result.class_names == ["tench", "tabby cat", "banana", "toilet paper"]
        assert result.labels.tolist() == [0, 1, 2, 3]
        assert [shows(result.image(row), number) for row, number in enumerate((1, 3, 0, 2))] == [True] * 4
        assert len(result.templates) == 80 and result.prompts()[2][0] == "a bad photo of a banana."
        assert result.prompts()[1] == [fill("tabby cat") for fill in open_clip.OPENAI_IMAGENET_TEMPLATES]


def test_folders_with_the_id_in_their_name(tmp_path: Path) -> None:
    write_classes(tmp_path, ["0_n01440764_tench", "n01443537-goldfish"])
    assert load_labelled(f"imagenet:{tmp_path}").class_names == ["tench", "goldfish"]


@pytest.mark.parametrize("form", ["{:04d}", "{}"])
def test_all_classes_by_number(tmp_path: Path, form: str) -> None:
    for number in range(1000):
        (tmp_path / form.format(number)).mkdir()
        (tmp_path / form.format(number) / "a.jpg").touch()
    result = load_labelled(f"imagenet:{tmp_path}")
    assert result.class_names == list(open_clip.IMAGENET_CLASSNAMES)
    named = {identity: label for identity, label in zip(result.pairs.ids, result.labels, strict=True)}
    assert all(named[f"{form.format(number)}/a.jpg"] == number for number in (0, 7, 10, 100, 999))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["tench", "banana"], r"'banana' does not say which class.*all 1000.*there are 2 folders"),
        (["0", "1", "2"], "'0' does not say which class"),
        (["n01440764", "n99999999"], "'n99999999' does not say which class"),
        (["n01440764_a", "n01440764_b"], "two folders are of one class"),
    ],
)
def test_classes_that_cannot_be_told(tmp_path: Path, names: list[str], message: str) -> None:
    write_classes(tmp_path, names)
    with pytest.raises(SettingError, match=message):
        load_labelled(f"imagenet:{tmp_path}")


def test_without_classes_or_anything(tmp_path: Path) -> None:
    (tmp_path / "ILSVRC2012_val_00000001.JPEG").write_bytes(encoded(1))
    with pytest.raises(SettingError, match="of 1000 classes none is there"):
        load_labelled(f"imagenet:{tmp_path}")
    with pytest.raises(SettingError, match="no such file or folder"):
        load_labelled(f"imagenet:{tmp_path / 'nowhere'}")


def test_words_as_folder_names_are_a_plain_folder(tmp_path: Path) -> None:
    write_classes(tmp_path, ["tench", "goldfish"])
    assert load_labelled(tmp_path).class_names == ["goldfish", "tench"]


def test_ids_among_words_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path, ["tench", "n01440764"])
    with pytest.raises(SettingError, match="1 of 2 class folders have no words in their names: n01440764"):
        load_labelled(tmp_path)
