"""Sets of hard captions beside a recipe's own data: numbers against slow oracles, names, reports."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import workbench
from tests.data.composition_layouts import write_aro, write_sugar_crepe, write_winoground
from tests.fake_runs import write_run
from workbench.data.composition import open_choices
from workbench.errors import SettingError
from workbench.evaluation.composition_sets import FEWEST, UNCOUNTED, choice_scores, composition_sets
from workbench.evaluation.encode import encode_images, encode_texts
from workbench.evaluation.suites import evaluate, measure, results_of_queries, size_of
from workbench.files import read_json
from workbench.metrics import metric
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe
from workbench.reports.html import write_report


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return load_dual_encoder("demo_student").eval()


def recipe_of(*entries: object, **changes: object) -> Recipe:
    base = {
        "data.scenes": 20,
        "data.image_size": 32,
        "evaluation.suites": ["composition"],
        "evaluation.splits": ["val_concepts"],
        "evaluation.composition": [str(entry) for entry in entries],
    }
    return Recipe.load("task_only_demo", base | changes)


def slow_choices(image, text, images, texts) -> list[bool]:
    """By hand: whether the true caption's cosine is above that of every other."""
    right = []
    for (row, *_), options in zip(images, texts, strict=True):
        picture = image[row] / np.linalg.norm(image[row])
        cosines = [float(picture @ text[option] / np.linalg.norm(text[option])) for option in options]
        right.append(all(cosines[0] > other for other in cosines[1:]))
    return right


def random_questions(count: int, options: int) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(1)
    image, text = generator.normal(size=(9, 6)), generator.normal(size=(40, 6))
    images = generator.integers(0, 9, (count, 1))
    texts = [
        tuple(map(int, generator.choice(40, generator.integers(2, options + 1), False))) for _ in range(count)
    ]
    return image, text, images, texts


def test_sugar_crepe_by_category_and_macro_equals_a_slow_count() -> None:
    image, text, images, texts = random_questions(90, 2)
    categories = ["add_obj"] * 50 + ["swap_att"] * 30 + ["replace-rel"] * 10
    scores, queries = choice_scores("sugar_crepe", image, text, images, texts, categories, [""] * 90)
    right = np.array(slow_choices(image, text, images, texts))
    by_category = {
        "add_obj": right[:50].mean(),
        "swap_att": right[50:80].mean(),
        "replace_rel": right[80:].mean(),
    }
    assert scores == pytest.approx(
        {
            "composition_accuracy": right.mean(),
            "composition_macro": np.mean(list(by_category.values())),
            **{f"composition_{name}_accuracy": value for name, value in by_category.items()},
        }
    )
    assert 0.2 < right.mean() < 0.8
    for name, value in scores.items():
        results, pictures = results_of_queries(name, queries)
        assert results.mean() == pytest.approx(value) and len(results) == len(pictures)
        assert metric(name).known and metric(name).share
    assert (
        results_of_queries("composition_swap_att_accuracy", queries)[1].tolist() == images[50:80, 0].tolist()
    )


def test_order_wants_the_caption_before_every_shuffling() -> None:
    image, text, images, texts = random_questions(60, 5)
    scores, queries = choice_scores("order", image, text, images, texts, ["order"] * 60, [""] * 60)
    right = slow_choices(image, text, images, texts)
    assert queries["composition_correct"].tolist() == right
    assert scores == {"composition_accuracy": np.mean(right)}


def test_aro_counts_relations_and_attributes_as_its_authors_do() -> None:
    image, text, images, texts = random_questions(100, 2)
    right = np.array(slow_choices(image, text, images, texts))
    relations = ["on"] * 20 + ["next to"] * 50 + ["under"] * 30  # the second holds both ways
    scores, _ = choice_scores("relation", image, text, images, texts, ["f"] * 100, relations)
    assert scores["composition_accuracy"] == right.mean()
    assert scores["composition_macro"] == pytest.approx((right[:20].mean() + right[70:].mean()) / 2)
    few = FEWEST - 1
    pairs = ["red_tall"] * few + ["old_white"] * 30 + ["big_blue"] * (70 - few)
    scores, _ = choice_scores("attribution", image, text, images, texts, ["f"] * 100, pairs)
    wanted = (right[few : few + 30].mean() + right[few + 30 :].mean()) / 2
    assert scores["composition_macro"] == pytest.approx(wanted)
    uncounted = choice_scores("relation", image, text, images, texts, ["f"] * 100, ["next to"] * 100)[0]
    assert set(uncounted) == {"composition_accuracy"}
    assert {"next to", "hanging off", "filled with", "going down", "wrapped in"} <= UNCOUNTED
    assert len(UNCOUNTED) == 157 and not {"on", "in", "under", "above", "to the left of"} & UNCOUNTED


def test_winoground_is_text_image_and_group_score() -> None:
    generator = np.random.default_rng(3)
    image, text = generator.normal(size=(400, 3)), generator.normal(size=(400, 3))
    images = texts = np.arange(400).reshape(200, 2)
    scores, queries = choice_scores(
        "winoground", image, text, images, [tuple(pair) for pair in texts.tolist()], [], []
    )
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (image, text)]
    score = unit[1] @ unit[0].T  # caption x picture
    right = {"text": [], "image": [], "group": []}
    for first, second in images:
        c0_i0, c0_i1 = score[first, first], score[first, second]
        c1_i0, c1_i1 = score[second, first], score[second, second]
        right["text"].append(c0_i0 > c1_i0 and c1_i1 > c0_i1)
        right["image"].append(c0_i0 > c0_i1 and c1_i1 > c1_i0)
        right["group"].append(right["text"][-1] and right["image"][-1])
    for name, results in right.items():
        assert scores[f"winoground_{name}_score"] == np.mean(results) and 0.05 < np.mean(results) < 0.5
        assert queries[f"winoground_{name}_correct"].tolist() == results
    assert len(set(scores.values())) == 3


def test_ties_count_against_the_model() -> None:
    image, text = np.ones((1, 4)), np.ones((3, 4))
    scores, _ = choice_scores(
        "sugar_crepe", image, text, np.zeros((2, 1), int), [(0, 1), (1, 2)], ["a", "a"], []
    )
    assert scores["composition_accuracy"] == 0
    two = choice_scores("winoground", np.ones((2, 4)), text, np.array([[0, 1]]), [(0, 1)], [], [])[0]
    assert set(two.values()) == {0.0}


def test_sets_stand_beside_splits_and_equal_embedding_by_hand(tmp_path: Path, student) -> None:
    sugar = write_sugar_crepe(tmp_path / "sugar_crepe", tmp_path / "val2017", {"add_obj": 12, "swap_att": 6})
    aro = write_aro(tmp_path / "aro", ["on", "under"] * 3, [("red", "tall")] * 4)
    winoground = write_winoground(tmp_path / "w", 5)
    recipe = recipe_of(f"{sugar}@{tmp_path / 'val2017'}", aro, winoground)
    reports = measure(student, recipe, tmp_path / "out")
    names = ["sugar_crepe", "visual_genome_attribution", "visual_genome_relation", "winoground"]
    assert list(reports) == ["val_concepts", *names]
    assert size_of(reports["sugar_crepe"]) == "5 pictures, 36 captions, 18 questions"
    assert size_of(reports["winoground"]) == "10 pictures, 10 captions, 5 questions"
    written = read_json(tmp_path / "out" / "visual_genome_relation.json")
    assert written["questions"] == 6 and "composition_macro" in written["scores"]

    files = sorted(sugar.glob("*.json"))
    choices = open_choices(files, "sugar_crepe", "", tmp_path / "val2017")
    image = encode_images(student, choices.pairs)[0].numpy()
    right = []
    for row, captions in zip(choices.images[:, 0], choices.captions, strict=True):
        true, false = encode_texts(student, captions).numpy() @ image[row]
        right.append(true > false)
    scores = reports["sugar_crepe"]["scores"]
    assert scores["composition_accuracy"] == np.mean(right)
    assert scores["composition_macro"] == pytest.approx((np.mean(right[:12]) + np.mean(right[12:])) / 2)


def test_unreadable_pictures_take_their_questions_along(tmp_path: Path, student) -> None:
    folder = write_winoground(tmp_path, 4)
    (folder / "data" / "images" / "ex_1_img_1.png").write_bytes(b"no picture")
    report = measure(student, recipe_of(folder))["winoground"]
    assert report["questions"] == 3 and report["images"] == 7
    assert report["failed"] == {"not an image (unknown format)": 1}


def test_runs_are_compared_on_them_and_reports_tell_of_them(tmp_path: Path, student) -> None:
    sugar = write_sugar_crepe(tmp_path / "sugar_crepe", tmp_path / "images", {"add_obj": 12, "swap_att": 6})
    settings = {"evaluation.composition": [str(sugar)], "evaluation.splits": ["val_concepts"]}
    runs = []
    for seed in (0, 1):
        path = write_run(tmp_path / str(seed), "task_only_demo", seed, overrides=settings, steps=3)
        evaluate(student, workbench.Run(path).recipe, path / "evaluation")
        runs.append(path)
    comparison = workbench.compare(runs)
    assert comparison.sizes["sugar_crepe"] == "5 pictures, 36 captions, 18 questions"
    row = comparison.table.loc[("sugar_crepe", "composition_macro")]
    assert 18 in row.to_list()
    page = write_report(runs, tmp_path / "report.html").read_text()
    assert "sugar_crepe" in page and "composition swap att accuracy" in page


@pytest.mark.parametrize(
    "entries, message",
    [
        (["nowhere"], "no such file or folder"),
        (["{tmp}/sugar_crepe@{tmp}/nowhere"], "no such folder"),
        (["{tmp}/sugar_crepe", "{tmp}/b/sugar_crepe"], "would be called 'sugar_crepe'"),
        (["{tmp}/images"], "it holds no published file"),
        (["{tmp}/val.json"], "would be called 'val'"),
    ],
)
def test_entries_that_cannot_be_meant(tmp_path: Path, entries: list[str], message: str) -> None:
    for place in (tmp_path, tmp_path / "b"):
        write_sugar_crepe(place / "sugar_crepe", place / "images", {"add_obj": 2})
    (tmp_path / "val.json").write_text((tmp_path / "sugar_crepe" / "add_obj.json").read_text())
    recipe = recipe_of(*(entry.replace("{tmp}", str(tmp_path)) for entry in entries))
    with pytest.raises(SettingError, match=message) as error:
        composition_sets(recipe, ["val"])
    assert error.value.setting == "evaluation.composition"


def test_training_checks_them_before_it_begins(tmp_path: Path) -> None:
    recipe = recipe_of("nowhere.json")
    with pytest.raises(SettingError, match=r"evaluation\.composition = 'nowhere.json'"):
        workbench.train(recipe, tmp_path / "run")


def test_the_authors_files_open_where_they_lie_beside_the_checkout() -> None:
    photos = Path(__file__).parents[3] / "shared" / "real_photos"
    photos = photos if photos.is_dir() else Path(__file__).parents[2] / "shared" / "real_photos"
    if not photos.is_dir():
        pytest.skip("SugarCrepe's items of COCO photographs are not beside this checkout")
    (entry,) = composition_sets(recipe_of(photos / "sugar_crepe")).values()
    choices = entry.open(recipe_of())
    counts = {name: choices.categories.count(name) for name in dict.fromkeys(choices.categories)}
    assert counts["swap_obj"] == 21 and sum(counts.values()) == 426 and len(counts) == 7
    item = json.loads((photos / "sugar_crepe" / "add_att.json").read_text())["43"]
    assert (item["caption"], item["negative_caption"]) in choices.captions
