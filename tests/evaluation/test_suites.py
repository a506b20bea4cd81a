"""Suites: one embedding of a split gives every number, and what data lacks is left out."""

import copy

import numpy as np
import pyarrow as pa
import pytest
import torch

from workbench.data.decode import BadSample
from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.evaluation import encode
from workbench.evaluation.encode import encode_pairs, encode_texts
from workbench.evaluation.retrieval.search import PictureIndex
from workbench.evaluation.suites import evaluate, evaluate_embedded, evaluation_splits
from workbench.files import read_json
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe

SUITES = ["retrieval", "zero_shot", "composition"]


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return load_dual_encoder("demo_student").eval()


@pytest.fixture(scope="module")
def some():
    return load_pairs("scenes", "val").select(range(40))


def test_embeddings_do_not_depend_on_the_batch(student, some):
    together = encode_pairs(student, some, 64)
    encode._remembered.clear()
    apart = encode_pairs(student, some, 7)
    torch.testing.assert_close(together.image, apart.image, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.text, apart.text, rtol=1e-4, atol=1e-5)
    assert together.image_of_text.tolist() == some.image_of_caption.tolist()
    torch.testing.assert_close(together.image.norm(dim=1), torch.ones(40))


def test_what_a_text_tower_said_is_remembered_as_long_as_it_stays_the_same(student, some, monkeypatch):
    model, asked = copy.deepcopy(student), []
    monkeypatch.setattr(
        model, "encode_text", lambda tokens: asked.append(len(tokens)) or student.encode_text(tokens)
    )
    captions = some.all_captions[:9]
    encode._remembered.clear()
    first, again = encode_texts(model, captions), encode_texts(model, captions)
    assert asked == [9] and torch.equal(first, again)
    first.zero_()  # a caller's own copy
    assert again.any() and encode_texts(model, captions).any()
    alone = torch.cat([encode_texts(model, [caption]) for caption in captions])
    torch.testing.assert_close(again, alone, rtol=1e-4, atol=1e-5)  # in the captions' own order
    with torch.no_grad():
        model.clip.visual.trunk.conv_stem.weight.add_(1)  # none of the text tower's
        assert encode_texts(model, captions) is not None and asked.count(9) == 1
        next(p for n, p in model.clip.named_parameters() if not n.startswith(("visual", "logit"))).add_(1)
    encode_texts(model, captions)
    assert asked.count(9) == 2


def test_unreadable_pictures_leave_with_their_captions_and_are_counted(student):
    def read(row):
        if row == 1:
            raise BadSample("empty file")
        return torch.full((3, 64, 64), 40 * row, dtype=torch.uint8)

    table = pa.table({"id": ["a", "b", "c"], "captions": [["one", "uno"], ["two"], ["three"]]})
    result = encode_pairs(student, Pairs(table, read, name="little", split="test"))
    assert result.rows.tolist() == [0, 2] and result.image_of_text.tolist() == [0, 0, 1]
    assert result.failed == {"empty file": 1} and len(result.text) == 3


def test_every_number_is_the_mean_of_the_queries_beside_it(student, some):
    scores, queries = evaluate_embedded(student, some, encode_pairs(student, some), SUITES)
    assert scores["text_to_image_r5"] == pytest.approx((queries["t2i_ranks"] <= 5).mean())
    assert scores["image_to_text_mrr"] == pytest.approx((1 / queries["i2t_ranks"]).mean())
    for key in ("zero_shot_names", "zero_shot_categories"):
        assert scores[f"{key}_top1"] == pytest.approx(queries[f"{key}_correct"].mean())
        ones = [row for row in range(40) if len(some.details(row)["objects"]) == 1]
        assert queries[f"{key}_correct_image"].tolist() == ones
    twos = [row for row in range(40) if some.details(row)["swapped_caption"]]
    assert queries["swap_correct_image"].tolist() == twos
    assert scores["swap_accuracy"] == pytest.approx(queries["swap_correct"].mean())


def test_only_what_is_asked_for_and_what_the_data_has(student, some):
    embedded = encode_pairs(student, some)
    assert set(evaluate_embedded(student, some, embedded, ["composition"])[0]) == {"swap_accuracy"}
    bare = Pairs(some.table.select(["id", "captions"]), some.image, name="bare", split="test")
    names = evaluate_embedded(student, bare, embedded, SUITES)[0]
    assert names and not any("zero" in name or "swap" in name for name in names)


def test_perfect_embeddings_score_one(student, some):
    embedded = encode_pairs(student, some)
    torch.manual_seed(0)
    embedded.image = torch.nn.functional.normalize(torch.randn(40, 32), dim=1)
    embedded.text = embedded.image[torch.from_numpy(embedded.image_of_text)]
    scores, _ = evaluate_embedded(student, some, embedded, ["retrieval"])
    assert scores["text_to_image_r1"] == 1 and scores["image_to_text_r1"] == 1
    assert scores["image_to_text_map"] == pytest.approx(1) and scores["text_to_image_median_rank"] == 1


def test_evaluate_writes_what_it_returns(student, tmp_path):
    recipe = Recipe.load("task_only_demo", {"evaluation.splits": ["val"], "evaluation.suites": ["retrieval"]})
    results = evaluate(student, recipe, tmp_path)
    report = read_json(tmp_path / "val.json")
    assert report["scores"] == results["val"] and report["images"] == 500
    assert report["data"] == load_pairs("scenes", "val").fingerprint
    with np.load(tmp_path / "val.npz") as queries:
        assert len(queries["t2i_ranks"]) == report["captions"] == len(queries["image_of_text"])


def test_suites_of_one_model_add_up(student, tmp_path):
    settings = {"evaluation.splits": ["val"], "evaluation.suites": ["retrieval"]}
    both = Recipe.load("task_only_demo", settings | {"evaluation.suites": ["retrieval", "composition"]})
    evaluate(student, Recipe.load("task_only_demo", settings), tmp_path)
    alone = Recipe.load("task_only_demo", settings | {"evaluation.suites": ["composition"]})
    assert set(evaluate(student, alone, tmp_path)["val"]) == {"swap_accuracy"}
    assert read_json(tmp_path / "val.json")["scores"] == evaluate(student, both)["val"]
    with np.load(tmp_path / "val.npz") as queries:
        assert {"t2i_ranks", "swap_correct"} <= set(queries)

    other = copy.deepcopy(student)  # of another model nothing stays
    with torch.no_grad():
        other.clip.visual.trunk.conv_stem.weight.mul_(2)
    evaluate(other, alone, tmp_path)
    assert set(read_json(tmp_path / "val.json")["scores"]) == {"swap_accuracy"}
    (tmp_path / "val.json").write_text("{")  # nor of a damaged file
    evaluate(other, alone, tmp_path)
    assert set(read_json(tmp_path / "val.json")["scores"]) == {"swap_accuracy"}


def test_splits_of_a_recipe():
    load = Recipe.load
    assert evaluation_splits(load("task_only_demo")) == ["test", "test_style", "test_concepts", "album"]
    with pytest.raises(SettingError, match=r"evaluation\.splits = 'tst'.*test_style"):
        evaluation_splits(load("task_only_demo", {"evaluation.splits": ["tst"]}))


def test_search_finds_a_picture_by_itself_and_words_in_order(student, some):
    import io

    from PIL import Image

    index = PictureIndex(student, some)
    file = io.BytesIO()
    Image.fromarray(some.image(7).permute(1, 2, 0).numpy()).save(file, "PNG")
    (row, score), *others = index.picture(file.getvalue(), 5)
    assert row == 7 and score == pytest.approx(1, abs=1e-4) and len(others) == 4
    scores = [score for _, score in index.words("a red apple", 50)]
    assert len(scores) == 40 and scores == sorted(scores, reverse=True)
    with pytest.raises(BadSample):
        index.picture(b"<html>")
