"""Published sets of hard captions: each layout opens as it is, and what is damaged is said."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.composition_layouts import (
    visual_genome_record,
    write_aro,
    write_pictures,
    write_sugar_crepe,
    write_winoground,
)
from workbench.data.composition import Choices, find_layouts, open_choices
from workbench.data.decode import BadSample
from workbench.errors import SettingError


def opened(source: Path, **options) -> Choices:
    layouts = find_layouts(source)
    (layout,) = set(layouts.values())
    return open_choices(list(layouts), layout, str(source), **options)


def test_sugar_crepe_opens_beside_coco(tmp_path: Path) -> None:
    categories = {"add_obj": 7, "swap_att": 3}
    folder = write_sugar_crepe(tmp_path / "sugar", tmp_path / "coco" / "val2017", categories)
    choices = opened(folder)
    assert choices.layout == "sugar_crepe" and len(choices.pairs) == 5
    assert choices.categories == ["add_obj"] * 7 + ["swap_att"] * 3
    assert choices.captions[1] == ("a add_obj scene 1", "another add_obj thing 1")
    assert choices.images[:, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 1, 2]
    assert choices.pairs.id(0) == "000000000000.png"
    assert choices.pairs.image(2)[0, 0, 0] == 106
    one = opened(folder / "swap_att.json", image_folder=tmp_path / "coco" / "val2017")
    assert len(one.captions) == 3 and one.fingerprint != choices.fingerprint
    (folder / "data").mkdir()
    for file in folder.glob("*.json"):
        file.rename(folder / "data" / file.name)  # as in its repository
    assert opened(folder).fingerprint == choices.fingerprint


def test_aro_asks_about_parts_of_pictures(tmp_path: Path) -> None:
    aro = write_aro(tmp_path, ["on", "under", "on"], [("red", "tall"), ("old", "white")])
    layouts = {file.name: layout for file, layout in find_layouts(aro).items()}
    assert layouts == {
        "visual_genome_attribution.json": "attribution",
        "visual_genome_relation.json": "relation",
    }
    relation = opened(aro / "visual_genome_relation.json")
    assert relation.groups == ["on", "under", "on"] and relation.images[:, 0].tolist() == [0, 1, 2]
    assert relation.pairs.ids == ["0.png@0,0,20,30", "0.png@20,0,20,30", "1.png@0,0,20,30"]
    left, right = relation.pairs.image(0), relation.pairs.image(1)
    assert left.shape == right.shape == (3, 30, 20)
    assert left[0].unique().tolist() == [0] and right[0].unique().tolist() == [255]
    assert opened(aro / "visual_genome_attribution.json").groups == ["red_tall", "old_white"]


def test_a_box_is_cut_at_the_edge_and_one_beside_the_picture_is_damaged(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", ["0.png"])
    file = tmp_path / "relation.json"
    boxes = [{"bbox_x": -5, "bbox_w": 15}, {"bbox_x": 100}]
    file.write_text(json.dumps([visual_genome_record(0, relation_name="on", **box) for box in boxes]))
    pairs = opened(file).pairs
    assert pairs.image(0).shape == (3, 30, 10)
    with pytest.raises(BadSample, match="damaged record"):
        pairs.image(1)


def test_winoground_names_its_pictures_without_ending(tmp_path: Path) -> None:
    choices = opened(write_winoground(tmp_path, 3))
    assert choices.images.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert choices.pairs.captions(3) == ["a lightbulb 1 surrounding some plants"]
    assert len(choices.captions) == 3


def test_order_leaves_out_shufflings_that_are_the_caption(tmp_path: Path) -> None:
    write_pictures(tmp_path / "val2014", ["a.png"])
    options = [["a dog", "dog a", "a dog"], ["a cat", "a cat", "a cat"], ["one two", "two one", "one  two "]]
    cases = [{"image": "val2014/a.png", "caption_options": captions} for captions in options]
    (tmp_path / "coco_order.json").write_text(json.dumps(cases))
    choices = opened(tmp_path / "coco_order.json", max_failed=0.5)
    assert choices.captions == [("a dog", "dog a"), ("one two", "two one")]
    assert choices.pairs.rejected == {"no caption": 1}


def test_what_cannot_be_meant_is_refused_and_says_what_would_work(tmp_path: Path) -> None:
    for name, content, message in (
        ("nowhere.json", None, "no such file or folder"),
        ("broken.json", "{", "broken.json cannot be read"),
        ("other.json", '[{"text": "x"}]', r"no known layout \(their fields: text\)"),
        ("empty.json", "[]", "fields: none"),
        ("coco_karpathy_test.json", '[{"image": "a.jpg", "caption": ["x"]}]', "json.dump"),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(SettingError, match=message) as error:
            find_layouts(tmp_path / name)
        assert error.value.setting == "evaluation.composition" and error.value.value == str(tmp_path / name)
    with pytest.raises(SettingError, match="it holds no published file"):
        find_layouts(tmp_path)


def test_damaged_questions_are_counted_up_to_the_limit(tmp_path: Path) -> None:
    folder = write_sugar_crepe(tmp_path / "sugar", tmp_path / "images", {"add_obj": 10})
    items = json.loads((folder / "add_obj.json").read_text())
    items["10"]["filename"] = "missing.png"
    items["13"]["negative_caption"] = 7
    items["16"]["filename"] = "../images/000000000002.png"
    del items["19"]["caption"]
    items["22"]["filename"] = ["a.png"]
    (folder / "add_obj.json").write_text(json.dumps(items))
    with pytest.raises(SettingError, match="5 of 10 questions cannot be used") as error:
        opened(folder)
    assert "SOURCE@FOLDER" in str(error.value) and "data.max_failed" in str(error.value)
    choices = opened(folder, max_failed=0.6)
    assert len(choices.captions) == 5 and np.isin(choices.images, range(5)).all()
    assert choices.pairs.rejected == {
        "damaged record": 2,
        "caption not text": 1,
        "missing file": 1,
        "path leaves the image folder": 1,
    }
    for file in (tmp_path / "images").iterdir():
        file.unlink()
    with pytest.raises(SettingError, match="At least one question must be usable"):
        opened(folder, max_failed=0.99)


def test_a_damaged_file_is_not_left_out_of_its_set(tmp_path: Path) -> None:
    folder = write_sugar_crepe(tmp_path / "sugar", tmp_path / "images", {"add_obj": 4, "swap_att": 4})
    text = (folder / "swap_att.json").read_text()
    (folder / "swap_att.json").write_text(text[:-20])
    with pytest.raises(SettingError, match=r"swap_att.json cannot be read.*Replace or remove that file"):
        find_layouts(folder)
    (folder / "swap_att.json").write_text(text)
    (folder / "._swap_att.json").write_bytes(b"\x00\x05\x16")  # as macOS leaves it
    assert len(opened(folder).captions) == 8
    first, *others = json.loads(text).values()
    del first["caption"]
    (folder / "swap_att.json").write_text(json.dumps([first, *others]))
    assert opened(folder, max_failed=0.2).categories == ["add_obj"] * 4 + ["swap_att"] * 3


def test_a_second_true_caption_is_not_ignored(tmp_path: Path) -> None:
    folder = write_sugar_crepe(tmp_path / "sugar", tmp_path / "images", {"add_obj": 4})
    records = json.loads((folder / "add_obj.json").read_text()).values()
    (folder / "add_obj.json").write_text(json.dumps([{**record, "caption2": "x"} for record in records]))
    with pytest.raises(SettingError, match=r"4 of 4 questions.*SugarCrepe\+\+"):
        opened(folder)


def test_pictures_are_found_where_the_first_ones_are_missing(tmp_path: Path) -> None:
    folder = write_sugar_crepe(tmp_path / "sugar", tmp_path / "images", {"add_obj": 60})
    items = json.loads((folder / "add_obj.json").read_text())
    for item in list(items.values())[:25]:
        item["filename"] = "missing.png"
    (folder / "add_obj.json").write_text(json.dumps(items))
    assert len(opened(folder, max_failed=0.5).captions) == 35


def test_lines_of_json_end_with_line_feeds_alone(tmp_path: Path) -> None:
    file = write_winoground(tmp_path, 2) / "data" / "examples.jsonl"
    file.write_text(file.read_text().replace("plants 0", "plants\u2028 0"), encoding="utf-8")
    assert opened(file).captions[0][0] == "some plants 0 surrounding a lightbulb"


def test_other_pictures_or_other_captions_are_other_data(tmp_path: Path) -> None:
    folder = write_sugar_crepe(tmp_path / "sugar", tmp_path / "images", {"add_obj": 4})
    first = opened(folder).fingerprint
    assert opened(folder).fingerprint == first
    write_pictures(tmp_path / "images", ["x.png", "000000000000.png"])
    assert (second := opened(folder).fingerprint) != first
    text = (folder / "add_obj.json").read_text()
    (folder / "add_obj.json").write_text(text.replace("another add_obj thing 3", "no such thing"))
    assert opened(folder).fingerprint not in (first, second)
