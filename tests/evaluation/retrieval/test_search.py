"""Searching pictures by words: what is special to the words counts, and precision is of what is shown."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from workbench.data.pairs import Pairs
from workbench.data.scenes.dataset import scenes
from workbench.evaluation.retrieval.search import PictureIndex, hubness, search_precision
from workbench.models.loading import load_dual_encoder


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return load_dual_encoder("demo_student").eval()


def test_a_picture_near_to_every_name_is_not_found_by_all(student, monkeypatch):
    """The hub has the larger cosine with the query, the other picture the larger one beyond what fits all."""
    unit = torch.nn.functional.normalize
    hub, own = unit(torch.tensor([[1.0, 0.3], [0.2, 1.0]]), dim=1)
    query = unit(torch.tensor([[1.0, 1.2]]), dim=1)
    bank = unit(torch.tensor([[1.0, 0.2], [1.0, -0.2]]), dim=1)
    pictures = torch.stack([hub, own])
    monkeypatch.setattr("workbench.evaluation.retrieval.search.encode_texts", lambda model, captions: bank)
    excess = hubness(student, scenes("val", 2), pictures)
    scale = float(student.scale.detach())
    assert excess.tolist() == pytest.approx(
        [torch.logsumexp(scale * bank @ picture, 0).item() / scale for picture in pictures]
    )
    assert excess[0] > excess[1]
    assert (pictures @ query[0] - excess).argmax() == 1


def test_an_answer_says_what_it_is_ranked_by(student):
    pairs = scenes("val", 20)
    index = PictureIndex(student, pairs)
    hits = index.words("a red apple", best=5)
    assert len(hits) == 5 and len({row for row, _ in hits}) == 5
    from workbench.evaluation.encode import encode_texts

    query = encode_texts(student, ["a red apple"])[0]
    excess = hubness(student, pairs, index.image)
    for row, score in hits:
        assert score == pytest.approx(float(index.image[row] @ query - excess[row]), abs=1e-6)
    assert [score for _, score in hits] == sorted((score for _, score in hits), reverse=True)


def test_precision_counts_the_pictures_that_show_the_thing(student, monkeypatch):
    """Two things in pictures of known embeddings."""
    names = ["fish"] * 4 + ["dog"] * 4
    table = pa.table(
        {"id": [str(n) for n in range(8)], "captions": [["x"]] * 8, "objects": [[n] for n in names]}
    )
    pairs = Pairs(table, lambda row: torch.zeros(3, 8, 8, dtype=torch.uint8), name="made", split="made")
    image = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0], [0.9, 0.1], [0.0, 1.0], [0.9, 0.1]])
    words = {"a fish": [1.0, 0.0], "a dog": [0.0, 1.0]}

    def encoded(model, captions):
        return torch.tensor([words.get(caption, [0.5, 0.5]) for caption in captions])

    monkeypatch.setattr("workbench.evaluation.retrieval.search.encode_texts", encoded)
    precision, found = search_precision(student, pairs, image, np.arange(8), things=2, best=2)
    assert dict(zip(found, precision, strict=True)) == {"dog": 1.0, "fish": 1.0}
    image.copy_(image.flip(1))  # now every picture is near to the other's name
    precision, found = search_precision(student, pairs, image, np.arange(8), things=2, best=2)
    assert dict(zip(found, precision, strict=True)) == {"dog": 0.0, "fish": 0.0}


def test_splits_that_show_things_too_seldom_are_not_judged(student):
    pairs = scenes("test", 60)
    assert search_precision(student, pairs, torch.empty(60, 3), np.arange(60))[1] == []


def test_the_album_shows_forty_things_often():
    album = scenes("album")
    counts: dict[str, int] = {}
    for names in album.table["objects"].to_pylist():
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    assert len(counts) == 40 and min(counts.values()) >= 12
