import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data.labelled.zero_shot_layouts import (
    BIRD_IMAGES,
    write_awa2,
    write_cub,
    write_lines,
    write_proposed_split,
)
from tests.data.samples import shows
from workbench.data.labelled.attribute_sets import bird_words
from workbench.data.labelled.load import load_labelled
from workbench.errors import SettingError


def test_awa2_as_distributed(tmp_path: Path) -> None:
    write_awa2(tmp_path)
    animals = load_labelled(tmp_path)
    assert animals.class_names == ["antelope", "grizzly bear", "killer whale"]
    assert animals.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert animals.pairs.ids[2] == "grizzly+bear/grizzly+bear_10001.jpg"
    assert all(shows(animals.image(row), row) for row in range(6))
    assert animals.unseen.tolist() == [False, False, True]  # testclasses.txt
    assert animals.test is None and len(animals.for_testing()) == 6
    attributes = animals.attributes
    assert attributes.names == ["black", "long neck", "flies", "ocean"] and attributes.of_image is None
    assert attributes.of_class.tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1]]
    # -1 says that nobody was asked: the binary predicate stands in.
    np.testing.assert_allclose(
        attributes.strength, [[0.6, 0.9, 0, 0], [0.4, 0, 0, 0.0125], [0.8, 0, 0, 0.95]]
    )
    assert attributes.sentence([0, 1]) == "a photo of an animal: black, long neck."
    assert attributes.sentence([]) == "a photo of an animal."
    np.testing.assert_array_equal(animals.attributes_of_images(), attributes.of_class[animals.labels])


def test_awa2_in_the_order_of_its_classes_and_of_its_own_folder(tmp_path: Path) -> None:
    base = write_awa2(tmp_path)
    write_lines(base / "classes.txt", ["1\tkiller+whale", "2\tantelope", "3\tgrizzly+bear"])
    animals = load_labelled(base)
    assert animals.class_names[0] == "killer whale" and animals.labels.tolist() == [1, 1, 2, 2, 0, 0]
    assert animals.unseen.tolist() == [True, False, False]


def test_awa2_proposed_split_beside_it_or_named(tmp_path: Path) -> None:
    base = write_awa2(tmp_path)
    names = load_labelled(base).pairs.ids
    files = [f"JPEGImages/{name}" for name in reversed(names)]  # in an order of their own
    # Images 5 and 6 are antelopes here, 3 and 4 bears, 1 and 2 whales.
    write_proposed_split(tmp_path, "AWA2", files, trainval=[1, 5], test_seen=[2, 6], test_unseen=[3, 4])
    for animals in (load_labelled(base), load_labelled(f"awa2:{tmp_path}", splits=tmp_path / "xlsa17")):
        assert animals.unseen.tolist() == [False, True, False]
        tested = [name for name, test in zip(names, animals.test, strict=True) if test]
        assert tested == sorted([names[0], names[4], names[2], names[3]])
        little = animals.for_testing()
        assert little.labels.tolist() == [0, 1, 1, 2] and little.test.all()
        assert [shows(little.image(row), number) for row, number in enumerate((0, 2, 3, 4))] == [True] * 4
    with pytest.raises(SettingError, match=r"splits = .*no xlsa17/data/AWA2"):
        load_labelled(base, splits=base / "JPEGImages")


def test_test_images_that_are_missing_are_counted(tmp_path: Path) -> None:
    base = write_awa2(tmp_path)
    files = [f"JPEGImages/{name}" for name in load_labelled(base).pairs.ids]
    write_proposed_split(tmp_path, "AWA2", files, [1, 3], [2, 4], [5, 6])
    (base / files[1]).unlink()
    with pytest.raises(SettingError, match=r"1 of 6 images cannot be used \(missing file: 1\)"):
        load_labelled(base)
    animals = load_labelled(base, max_failed=0.2)
    assert animals.pairs.rejected == {"missing file": 1} and animals.test.sum() == 3


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("predicate-matrix-binary.txt", ["1 0 1 0"], "not 3 rows of 4 numbers"),
        ("predicate-matrix-continuous.txt", ["a b"], "not 3 rows of 4 numbers"),
        ("predicates.txt", ["black", "white"], "it has a line 'black'"),
        ("predicates.txt", ["2 black"], "not numbered from 1"),
        ("classes.txt", ["1 antelope", "1 grizzly+bear"], "it has a line '1 grizzly"),
        ("classes.txt", ["1 antelope"], "'grizzly.bear' is no class of classes.txt"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, file: str, lines: list[str], message: str) -> None:
    base = write_awa2(tmp_path)
    write_lines(base / file, lines)
    with pytest.raises(SettingError, match=message):
        load_labelled(base)


def test_cub_as_distributed(tmp_path: Path) -> None:
    base = write_cub(tmp_path)
    for birds in (load_labelled(tmp_path), load_labelled(f"cub:{base}")):
        assert birds.class_names == ["Black footed Albatross", "Laysan Albatross"]
        assert birds.prompts()[0] == ["a photo of a Black footed Albatross, a type of bird."]
        assert birds.pairs.ids == list(BIRD_IMAGES) and birds.labels.tolist() == [0, 0, 1, 1]
        assert all(shows(birds.image(row), row) for row in range(4))
        assert birds.test.tolist() == [False, True, False, True] and birds.unseen is None
        attributes = birds.attributes
        assert attributes.names == [
            "curved bill shape",
            "hooked bill shape",
            "blue wing",
            "grey wing",
            "forked tail",
        ]
        assert attributes.groups == ["bill shape", "bill shape", "wing color", "wing color", "tail shape"]
        nan = np.nan  # where the annotator was guessing, or could not see it
        np.testing.assert_array_equal(
            attributes.of_image,
            [[1, 0, 1, nan, nan], [1, 0, 0, 1, 1], [0, 1, 0, 0, 0], [0, nan, 1, 0, 0]],
        )
        np.testing.assert_allclose(attributes.strength[0], [0.905, 0.05, 0.6, 0.4, 0.8], rtol=1e-6)
        assert attributes.of_class.tolist() == [[1, 0, 1, 0, 1], [0, 1, 1, 0, 0]]
        np.testing.assert_array_equal(birds.for_testing().attributes_of_images(), attributes.of_image[[1, 3]])


def test_cub_without_class_shares_takes_those_of_its_images(tmp_path: Path) -> None:
    base = write_cub(tmp_path)
    (base / "attributes" / "class_attribute_labels_continuous.txt").unlink()
    strength = load_labelled(base).attributes.strength
    np.testing.assert_allclose(strength, [[1, 0, 0.5, 1, 1], [0, 1, 0.5, 0, 0]])


def test_attributes_txt_inside_and_nowhere(tmp_path: Path) -> None:
    base = write_cub(tmp_path)
    for place in (base / "attributes.txt", base / "attributes" / "attributes.txt"):
        source = next(tmp_path.rglob("attributes.txt"))
        shutil.move(source, place)
        assert load_labelled(base).attributes.names[0] == "curved bill shape"
    place.unlink()
    with pytest.raises(SettingError, match=r"no attributes\.txt.*beside the folder CUB_200_2011"):
        load_labelled(base)
    shutil.rmtree(base / "attributes")
    assert load_labelled(base).attributes is None


def test_cub_proposed_split(tmp_path: Path) -> None:
    write_cub(tmp_path)
    files = [f"images/{name}" for name in BIRD_IMAGES]
    write_proposed_split(tmp_path, "CUB", files, trainval=[1], test_seen=[2], test_unseen=[3, 4])
    birds = load_labelled(tmp_path)
    assert birds.unseen.tolist() == [False, True] and birds.test.tolist() == [False, True, True, True]


def test_images_of_cub_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    base = write_cub(tmp_path)
    (base / "images" / BIRD_IMAGES[1]).unlink()
    lines = [f"{number} {name}" for number, name in enumerate(BIRD_IMAGES, 1)]
    write_lines(base / "images.txt", [*lines, "5 ../attributes.txt", f"6 {BIRD_IMAGES[0]}"])
    write_lines(base / "image_class_labels.txt", ["1 1", "2 1", "3 2", "4 2", "5 1", "6 1"])
    birds = load_labelled(base, max_failed=0.5)
    assert birds.pairs.rejected == {
        "missing file": 1,
        "path leaves the image folder": 1,
        "duplicate id": 1,
    }
    assert birds.pairs.ids == [BIRD_IMAGES[0], BIRD_IMAGES[2], BIRD_IMAGES[3]]
    # What is known of an image stays with it.
    assert birds.attributes.of_image[1].tolist() == [0, 1, 0, 0, 0] and birds.test.tolist() == [
        False,
        False,
        True,
    ]


def test_labels_of_cub_that_make_no_sense(tmp_path: Path) -> None:
    base = write_cub(tmp_path)
    write_lines(base / "image_class_labels.txt", ["1 1", "2 1", "3 2", "4 3"])
    with pytest.raises(SettingError, match="image 4 has the label '3'"):
        load_labelled(base)
    write_cub(tmp_path)
    labels = base / "attributes" / "image_attribute_labels.txt"
    for line in ("1 2 x 4 1.0", "1 1", "1 2 0.5 4 1.0"):
        write_lines(labels, ["1 1 1 4 1.0", line])
        with pytest.raises(SettingError, match=r"image_attribute_labels.*row [12]"):
            load_labelled(base)
    labels.write_bytes(b"")
    with pytest.raises(SettingError, match="empty file"):
        load_labelled(base)
    unknown = ["9 1 1 4 1.0", "1 77 1 4 1.0", "1 0 1 4 1.0", "1 1 5 4 1.0", "1 1 1 0 1.0"]
    write_lines(labels, [*unknown, "2 1 1 4 1.0"])
    result = load_labelled(base).attributes.of_image
    assert result[1, 0] == 1 and np.isnan(result).sum() == result.size - 1


@pytest.mark.parametrize(
    ("name", "group", "phrase"),
    [
        ("has_bill_shape::hooked_seabird", "bill shape", "hooked seabird bill shape"),
        ("has_upper_tail_color::rufous", "upper tail color", "rufous upper tail"),
        ("has_primary_color::red", "primary color", "red primary color"),
        ("has_wing_shape::rounded-wings", "wing shape", "rounded wings"),
        ("has_head_pattern::unique_pattern", "head pattern", "unique head pattern"),
        ("has_bill_length::about_the_same_as_head", "bill length", "bill about the same as head"),
        ("has_size::very_large_(32_-_72_in)", "size", "very large size"),
        ("has_shape::tree-clinging-like", "shape", "tree-clinging-like shape"),
        ("soars", None, "soars"),
    ],
)
def test_words_for_birds(name: str, group: str | None, phrase: str) -> None:
    assert bird_words(name) == (group, phrase)
