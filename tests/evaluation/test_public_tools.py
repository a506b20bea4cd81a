"""Our numbers beside those of public tools on the same embeddings: open_clip's own, scikit-learn,
sentence-transformers."""

import numpy as np
import open_clip
import pytest
import torch
from open_clip_train.train import get_clip_metrics
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sklearn.metrics import average_precision_score, balanced_accuracy_score, top_k_accuracy_score

from workbench.data.load import load_pairs
from workbench.evaluation import retrieval_metrics, zero_shot_metrics, zero_shot_weights
from workbench.evaluation.encode import encode_pairs, encode_texts
from workbench.models.loading import load_dual_encoder

EXACT = {"rel": 1e-6, "abs": 1e-9}
TEMPLATES = ["a picture of {}", "a drawing of {}", "{}"]


@pytest.fixture(scope="module")
def model():
    return load_dual_encoder("demo_teacher", "demo_teacher").eval()


@pytest.fixture(scope="module")
def pairs():
    return load_pairs("scenes", "val", scenes=300, image_size=32).select(range(61))


@pytest.fixture(scope="module")
def embedded(model, pairs):
    """What a real model makes of real scenes, five captions each."""
    return encode_pairs(model, pairs)


@pytest.fixture(scope="module")
def scores(embedded):
    image, text = (
        torch.nn.functional.normalize(side.double(), dim=-1) for side in (embedded.image, embedded.text)
    )
    return (image @ text.T).numpy()


def test_one_caption_a_picture_as_open_clip_validates(embedded):
    first = np.unique(embedded.image_of_text, return_index=True)[1]
    image, text = (
        torch.nn.functional.normalize(side.double(), dim=-1)
        for side in (embedded.image, embedded.text[first])
    )
    theirs = get_clip_metrics(image, text, 100.0)
    ours = retrieval_metrics(embedded.image, embedded.text[first], np.arange(len(first)))
    for direction in ("text_to_image", "image_to_text"):
        side = getattr(ours, direction)
        for k in (1, 5, 10):
            assert side.recall[k] == pytest.approx(theirs[f"{direction}_R@{k}"], **EXACT)
        assert side.median_rank == theirs[f"{direction}_median_rank"]  # of an odd number of ranks
        assert side.ranks.mean() == pytest.approx(theirs[f"{direction}_mean_rank"], **EXACT)


def test_several_captions_a_picture_as_sentence_transformers_counts(embedded, scores):
    owner, ks = embedded.image_of_text, [1, 5, 10]
    everything = max(scores.shape)
    result = retrieval_metrics(embedded.image, embedded.text, owner)
    for side, table, relevant in (
        (result.text_to_image, scores.T, [{f"{i:04d}"} for i in owner]),
        (
            result.image_to_text,
            scores,
            [{f"{t:04d}" for t in np.flatnonzero(owner == i)} for i in range(len(scores))],
        ),
    ):
        evaluator = InformationRetrievalEvaluator(
            {str(query): "" for query in range(len(table))},
            {f"{answer:04d}": "" for answer in range(table.shape[1])},
            {str(query): answers for query, answers in enumerate(relevant)},
            accuracy_at_k=ks, mrr_at_k=[everything], map_at_k=[everything],
        )  # fmt: skip
        hits = [
            [{"corpus_id": f"{answer:04d}", "score": score} for answer, score in enumerate(row)]
            for row in table.tolist()
        ]
        theirs = evaluator.compute_metrics(hits)
        for k in ks:
            assert side.recall[k] == pytest.approx(theirs["accuracy@k"][k], **EXACT)
        assert side.mrr == pytest.approx(theirs["mrr@k"][everything], **EXACT)
        assert side.map == pytest.approx(theirs["map@k"][everything], **EXACT)


def test_recall_and_average_precision_as_scikit_learn_has_them(embedded, scores):
    owner = embedded.image_of_text
    result = retrieval_metrics(embedded.image, embedded.text, owner)
    for k in (1, 5, 10):
        theirs = top_k_accuracy_score(owner, scores.T, k=k, labels=np.arange(len(scores)))
        assert result.text_to_image.recall[k] == pytest.approx(theirs, **EXACT)
    theirs = np.mean([average_precision_score(owner == i, scores[i]) for i in range(len(scores))])
    assert result.image_to_text.map == pytest.approx(theirs, **EXACT)


def test_zero_shot_as_open_clip_and_scikit_learn_have_it(model, pairs, embedded):
    objects = pairs.table["objects"].to_pylist()
    names = sorted({name for row in objects for name in row})
    labels = np.array([names.index(row[0]) for row in objects])
    prompts = [template.format(name) for name in names for template in TEMPLATES]
    ours = zero_shot_weights(encode_texts(model, prompts).view(len(names), len(TEMPLATES), -1))
    theirs = open_clip.build_zero_shot_classifier(model.clip, model.tokenizer, names, TEMPLATES)
    torch.testing.assert_close(ours, theirs.T, atol=1e-5, rtol=1e-4)
    image = torch.nn.functional.normalize(embedded.image.double(), dim=-1)
    logits = image @ ours.double().T
    result = zero_shot_metrics(embedded.image, ours, labels)
    # open_clip's own count of right answers does not run with this NumPy.
    for k, value in ((1, result.top1), (5, result.top5)):
        theirs_k = top_k_accuracy_score(labels, logits.numpy(), k=k, labels=np.arange(len(names)))
        assert value == pytest.approx(theirs_k, **EXACT)
    chosen = logits.argmax(1).numpy()
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = balanced_accuracy_score(labels, chosen)
    assert result.mean_per_class == pytest.approx(balanced, **EXACT)
