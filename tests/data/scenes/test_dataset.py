"""The embedded dataset: deterministic, captions true and unique, splits disjoint, cache hard to break."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from workbench.data.scenes import dataset as module
from workbench.data.scenes.dataset import SPLITS, concepts, scenes, split_drawings
from workbench.errors import SettingError

EVALUATION = [split for split in SPLITS if split != "train"]
WORDS = {
    "left of": "left",
    "right of": "right",
    "above": "above",
    "over": "above",
    "below": "below",
    "under": "below",
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def splits(cache):
    return {split: scenes(split, 120) for split in SPLITS}


@pytest.fixture(scope="module")
def full_evaluation(cache):
    """Captions and columns of the evaluation splits at their full size, without painting them."""
    painter = module.Painter(64)
    return {split: list(module._compose(split, SPLITS[split], 0, painter.aspect)) for split in EVALUATION}


def folder_of(pairs) -> Path:
    return pairs._read.path.parent


def test_what_a_row_holds(splits):
    pairs = splits["train"]
    assert (pairs.name, pairs.split, len(pairs)) == ("scenes", "train", 120)
    image = pairs.image(3)
    assert image.shape == (3, 64, 64) and image.dtype == torch.uint8
    for row in range(len(pairs)):
        details = pairs.details(row)
        assert len(pairs.captions(row)) == 5
        count = len(details["objects"])
        assert all(len(details[column]) == count for column in ("categories", "sizes", "styles", "boxes"))
        assert (details["swapped_caption"] is not None) == (count == 2)
        assert details["swapped_caption"] not in pairs.captions(row)
        assert np.min(details["boxes"]) >= 0 and np.max(details["boxes"]) <= 64


def test_an_image_may_be_changed_without_harm(splits):
    first = splits["train"].image(0)
    before = first.clone()
    first.zero_()
    assert torch.equal(splits["train"].image(0), before)


def test_the_first_scenes_of_a_larger_set_are_the_smaller_set(splits):
    for split in ("train", "test"):
        few, many = scenes(split, 40), splits[split]
        assert few.table.equals(many.table.slice(0, 40))
        assert all(torch.equal(few.image(row), many.image(row)) for row in range(40))


def test_another_process_draws_the_same(splits, tmp_path):
    code = "from workbench.data.scenes.dataset import scenes; print(scenes('test', 30)._read.path.parent)"
    environment = {**os.environ, "WORKBENCH_CACHE": str(tmp_path), "PYTHONHASHSEED": "7"}
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    theirs = Path(printed.stdout.strip())
    ours = folder_of(scenes("test", 30))
    assert theirs != ours
    assert all(
        (theirs / name).read_bytes() == (ours / name).read_bytes() for name in ("images.npy", "scenes.jsonl")
    )


def test_seed_split_and_size_matter(splits):
    other = scenes("train", 20, seed=1)
    assert other.ids != splits["train"].ids[:20] and other.captions(0) != splits["train"].captions(0)
    assert splits["val"].captions(0) != splits["test"].captions(0)
    large = scenes("val", 10, image_size=96)
    assert large.image(0).shape == (3, 96, 96)
    assert [large.captions(row) for row in range(10)] == [splits["val"].captions(row) for row in range(10)]


@pytest.mark.parametrize("split", SPLITS)
def test_relations_are_true_of_the_boxes(splits, split):
    pairs = splits[split]
    names = {concept.name: concept.phrase for concept in concepts()}
    for row in range(len(pairs)):
        details = pairs.details(row)
        if len(details["objects"]) == 1:
            continue
        boxes = {names[name]: box for name, box in zip(details["objects"], details["boxes"], strict=True)}
        for caption in pairs.captions(row)[2:4]:
            assert holds(caption, boxes), (pairs.ids[row], caption)
        if details["swapped_caption"]:
            assert not holds(details["swapped_caption"], boxes)


def holds(caption: str, boxes: dict[str, list[float]]) -> bool:
    """Whether a relation caption is true, parsed without the code that wrote it; boxes are in pixels."""
    text = caption.removeprefix("a picture of ")
    pattern = "|".join(re.escape(phrase) for phrase in sorted(boxes, key=len, reverse=True))
    first, second = (match.group() for match in re.finditer(rf"\b(?:{pattern})(?![\w-])", text))
    (word,) = re.findall(rf"\b({'|'.join(WORDS)})\b", text)
    subject, reference = (
        (second, first)
        if re.search(r"\b(is|are)\b", text) and not text.startswith(first)
        else (first, second)
    )
    a, b = np.array(boxes[subject]), np.array(boxes[reference])
    (ax, ay), (bx, by) = (a[:2] + a[2:]) / 2, (b[:2] + b[2:]) / 2
    return {"left": bx - ax, "right": ax - bx, "above": by - ay, "below": ay - by}[WORDS[word]] > 10


@pytest.mark.parametrize("split", SPLITS)
def test_places_of_single_objects_are_true_of_the_boxes(splits, split):
    pairs = splits[split]
    seen = set()
    for row in range(len(pairs)):
        details = pairs.details(row)
        if len(details["objects"]) > 1:
            continue
        x0, y0, x1, y1 = details["boxes"][0]
        x, y = (x0 + x1) / 128, (y0 + y1) / 128
        for caption in pairs.captions(row)[2:4]:
            place = re.search(r"\b(?:the) ((?:top|bottom|left|right|middle)(?: left| right)?)\b", caption)
            assert place, caption
            words = place.group(1).split()
            seen.update(words)
            assert ("left" in words) == (x < 0.4) and ("right" in words) == (x > 0.6), caption
            assert ("top" in words) == (y < 0.4) and ("bottom" in words) == (y > 0.6), caption
            assert ("middle" in words) == (0.4 < x < 0.6 and 0.4 < y < 0.6), caption
    assert seen == {"top", "bottom", "left", "right", "middle"}


@pytest.mark.parametrize("split", SPLITS)
def test_captions_name_every_object_size_and_background(splits, split):
    pairs = splits[split]
    known = {concept.name: concept for concept in concepts()}
    for row in range(len(pairs)):
        details, captions = pairs.details(row), pairs.captions(row)
        for name, size, box in zip(details["objects"], details["sizes"], details["boxes"], strict=True):
            assert known[name].phrase in captions[0] and known[name].phrase in captions[4]
            assert known[name].describe(size) in captions[1]
            longer = max(box[2] - box[0], box[3] - box[1]) / 64
            assert (longer > 0.36) == (size == "large")
        assert details["background"] in captions[1] and details["background"] in captions[4]
        assert [known[name].category for name in details["objects"]] == details["categories"]


def test_grammar_of_many_captions(splits):
    captions = [caption for pairs in splits.values() for caption in pairs.all_captions]
    plurals = "|".join(re.escape(concept.name) for concept in concepts() if concept.plural)
    for caption in captions:
        assert not re.search(
            r"\ba [aeioA]|\ban [^aeiouhAX]|\ba (hour|X-)|  |\bsome\b",
            re.sub("a (one-|euro|uni)", "a word", caption),
        ), caption
        assert not re.search(rf"\ban? (small |large )?({plurals})\b(?! (of|with|book))", caption), caption
        assert caption == caption.strip() and caption[0] != "," and not caption.endswith(",")


@pytest.mark.parametrize("split", EVALUATION)
def test_captions_of_an_evaluation_split_are_unique(full_evaluation, split):
    captions = [text for _, captions, _ in full_evaluation[split] for text in captions.texts]
    assert len(captions) == 5 * SPLITS[split]
    assert len(set(captions)) == len(captions)
    # Nor does a false caption say what is true of another picture.
    assert not set(captions) & {captions.swapped for _, captions, _ in full_evaluation[split]}


@pytest.mark.parametrize("split", EVALUATION)
def test_scenes_of_an_evaluation_split_differ_in_what_captions_say(full_evaluation, split):
    kinds = []
    for scene, _, _ in full_evaluation[split]:
        names = [thing.concept.name for thing in scene.objects]
        kinds += [frozenset((a, b)) for a in names for b in names if a < b] or [(names[0], scene.background)]
    assert len(set(kinds)) == len(kinds)


def test_splits_are_disjoint(splits, full_evaluation):
    ids = [name for pairs in splits.values() for name in pairs.ids]
    assert len(set(ids)) == len(ids)

    def shown(split):
        return {
            (thing.concept.name, thing.style)
            for scene, _, _ in full_evaluation[split]
            for thing in scene.objects
        }

    trained = {(concept.name, style) for concept, styles in split_drawings("train") for style in styles}
    names = {name for name, _ in trained}
    assert shown("val") | shown("test") <= trained
    assert not shown("test_style") & trained and {name for name, _ in shown("test_style")} <= names
    assert {style for _, style in shown("test_style")} == {"openmoji"}
    assert not {name for name, _ in shown("test_concepts")} & names
    unseen = [{name for name, _ in shown(split)} for split in ("val_concepts", "test_concepts")]
    assert not unseen[0] & names and not unseen[0] & unseen[1]
    assert sum(map(len, unseen)) == sum(concept.held_out for concept in concepts())
    assert {name for name, _ in shown("album")} <= names


def test_the_reader_travels_to_other_processes(splits):
    pairs = splits["val"]
    pairs.image(0)  # opens the array, which must stay behind
    copy = pickle.loads(pickle.dumps(pairs))
    assert len(pickle.dumps(pairs._read)) < 1000
    assert torch.equal(copy.image(7), pairs.image(7))


@pytest.mark.parametrize("name", ["images.npy", "scenes.jsonl", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "change", "remove"])
def test_a_damaged_cache_is_rendered_again(name, damage):
    pairs = scenes("val", 12, image_size=32)
    file = folder_of(pairs) / name
    whole = file.read_bytes()
    if damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "change":
        file.write_bytes(whole.replace(b"1", b"2"))
    else:
        file.unlink()
    again = scenes("val", 12, image_size=32)
    assert file.read_bytes() == whole
    assert again.fingerprint == pairs.fingerprint


def test_a_whole_cache_is_not_rendered_again(splits, monkeypatch):
    monkeypatch.setattr(module, "_render", lambda *_: pytest.fail("rendered again"))
    assert scenes("train", 120).fingerprint == splits["train"].fingerprint


def test_a_killed_rendering_leaves_no_broken_cache(tmp_path, monkeypatch):
    code = "from workbench.data.scenes.dataset import scenes; scenes('train', 50_000, image_size=32)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "WORKBENCH_CACHE": str(tmp_path)}
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("scenes/.*.partial/images.npy")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("scenes/[!.]*"))
    (partial,) = tmp_path.glob("scenes/.*.partial")

    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_render", fake_render)
    pairs = scenes("train", 50_000, image_size=32)
    assert len(pairs) == 1 and not partial.exists()


def fake_render(folder, *_):
    assert not any(folder.iterdir())
    np.save(folder / "images.npy", np.zeros((1, 3, 32, 32), np.uint8))
    (folder / "scenes.jsonl").write_text(json.dumps({"id": "only", "captions": ["nothing"]}) + "\n")


def test_two_processes_at_once_share_one_rendering(tmp_path):
    code = (
        "from workbench.data.scenes.dataset import scenes;print(scenes('val', 60, image_size=32).fingerprint)"
    )
    environment = {**os.environ, "WORKBENCH_CACHE": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = {process.communicate()[0].strip() for process in both}
    assert len(printed) == 1 and all(process.returncode == 0 for process in both)
    assert len(list(tmp_path.glob("scenes/[!.]*"))) == 1


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ({"split": "dev"}, "split"),
        ({"split": "train", "count": 0}, "data.scenes"),
        ({"split": "train", "image_size": 16}, "data.image_size"),
        ({"split": "train", "seed": -1}, "seed"),
    ],
)
def test_settings_out_of_range_are_named(arguments, setting):
    with pytest.raises(SettingError) as caught:
        scenes(**arguments)
    assert caught.value.setting == setting


def test_a_split_that_runs_out_of_scenes_says_so(monkeypatch):
    few = split_drawings("test_concepts")[:4]
    monkeypatch.setattr(module, "split_drawings", lambda split: few if split == "test_concepts" else [])
    with pytest.raises(SettingError, match="runs out"):
        scenes("test_concepts", 60, image_size=32)


def test_every_flipped_bit_of_the_manifest_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    folder = module._rendered("train", 2, 32, 0)
    manifest = folder / "manifest.json"
    sound = manifest.read_bytes()
    made_from = json.loads(sound)["made_from"]
    assert module._is_whole(folder, made_from)
    for place in np.random.default_rng(0).choice(8 * len(sound), 300, replace=False):
        damaged = bytearray(sound)
        damaged[place // 8] ^= 1 << place % 8
        manifest.write_bytes(damaged)
        assert not module._is_whole(folder, made_from), f"bit {place} went unnoticed"
