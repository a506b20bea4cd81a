import numpy as np
import pytest

from workbench.evaluation.probes.text_teachers import (
    CONTROL,
    caption_retrieval,
    score_text_teacher,
    score_text_teachers,
    tfidf_embeddings,
    unfit,
)


def slow_retrieval(unit: np.ndarray, image: np.ndarray) -> float:
    hits = []
    for n in range(len(unit)):
        others = [m for m in range(len(unit)) if m != n]
        mine = [float(unit[n] @ unit[m]) for m in others if image[m] == image[n]]
        theirs = [float(unit[n] @ unit[m]) for m in others if image[m] != image[n]]
        if mine:
            hits.append(max(mine) > max(theirs))
    return float(np.mean(hits))


def test_retrieval_equals_a_slow_version() -> None:
    generator = np.random.default_rng(0)
    image = np.repeat(np.arange(20), 3)
    unit = generator.normal(size=(20, 6))[image] + 1.5 * generator.normal(size=(60, 6))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    image[-1] = 99  # alone with its picture
    expected = slow_retrieval(unit, image)
    assert 0.1 < expected < 0.9
    for chunk in (7, 1024):
        assert caption_retrieval(unit, image, chunk) == pytest.approx(expected)


def test_ties_do_not_find() -> None:
    assert caption_retrieval(np.ones((6, 2)), np.repeat(np.arange(3), 2)) == 0
    assert np.isnan(caption_retrieval(np.eye(3), np.arange(3)))


def test_a_teacher_that_knows_is_told_from_one_that_does_not() -> None:
    generator = np.random.default_rng(0)
    image = np.repeat(np.arange(60), 2)
    category = np.array(["cat", "dog", "pie"])[image % 3]
    some = [str(item) if image[n] < 50 else None for n, item in enumerate(category)]
    meaning = 5 * generator.normal(size=(3, 8))[image % 3] + generator.normal(size=(60, 8))[image]
    knows = meaning + 0.1 * generator.normal(size=(120, 8))
    guesses = generator.normal(size=(120, 8)) + 30  # all of them point one way
    good, bad = score_text_teacher(knows, image, some), score_text_teacher(guesses, image, some)
    assert good.retrieval_r1 > 0.95 and good.nmi > 0.95 and good.purity > 0.95
    assert bad.retrieval_r1 < 0.1 and bad.nmi < 0.2
    assert bad.mean_cosine > 0.99 and abs(bad.mean_cosine_centred) < 0.05
    assert 1 < good.effective_rank <= 8
    assert unfit(good, bad) is None
    reason = unfit(bad, good)
    assert reason and "captions of the same picture" in reason and "clusters have an NMI" in reason
    assert np.isnan(score_text_teacher(knows, image, [None] * 120).nmi)


def test_the_control_is_scored_on_the_same_captions() -> None:
    words = ["apple", "pear", "car", "train"]
    captions = [f"{style} {word}" for word in words for style in ("a picture of the", "here is one big")]
    image = np.repeat(np.arange(4), 2)
    embeddings = np.eye(4)[image] + 0.01 * np.random.default_rng(0).normal(size=(8, 4))
    result = score_text_teachers({"words": embeddings}, captions, image, ["fruit"] * 4 + ["vehicle"] * 4)
    assert list(result) == ["words", CONTROL]
    score, reason = result["words"]
    assert score.retrieval_r1 == 1 and reason is None and result[CONTROL][1] is None
    assert tfidf_embeddings(captions).shape == (8, 7)  # no more directions than captions allow
