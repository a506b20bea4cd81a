import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from tests.evaluation import slow
from workbench.evaluation import retrieval_folds, retrieval_metrics
from workbench.evaluation.retrieval import rank_counter
from workbench.evaluation.retrieval.metrics import Direction


@pytest.fixture(params=["pair by pair", "by product"])
def settled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of comparing close calls again, whatever their number."""
    monkeypatch.setattr(rank_counter, "DENSE", 2.0 if request.param == "pair by pair" else -1.0)


def world(
    images: int = 40, captions: int = 3, width: int = 8, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Captions near their images, in a shuffled order; some images have more of them than others."""
    generator = np.random.default_rng(seed)
    image = generator.normal(size=(images, width))
    owner = generator.permutation(
        np.concatenate([np.repeat(np.arange(images), captions), np.arange(images // 3)])
    )
    text = image[owner] + generator.normal(size=(len(owner), width))
    return image.astype(np.float32), text.astype(np.float32), owner


def check(direction: Direction, ranks: np.ndarray, precision: np.ndarray) -> None:
    assert direction.ranks.dtype == np.int64
    np.testing.assert_array_equal(direction.ranks, ranks)
    for k, recall in direction.recall.items():
        assert recall == pytest.approx(np.mean(ranks <= k), abs=1e-15)
    assert direction.mrr == pytest.approx(np.mean(1 / ranks), rel=1e-12)
    assert direction.map == pytest.approx(np.mean(precision), rel=1e-12)
    assert direction.median_rank == np.median(ranks)


def check_both(image: np.ndarray, text: np.ndarray, owner: np.ndarray, **options: int) -> None:
    result = retrieval_metrics(image, text, owner, **options)
    expected = slow.retrieval(image, text, owner)
    check(result.text_to_image, expected["text_ranks"], expected["text_precision"])
    check(result.image_to_text, expected["image_ranks"], expected["image_precision"])


@pytest.mark.parametrize("images, chunk", [(8, 1), (40, 7), (40, 16), (40, 2048)])
def test_equals_sorting(images: int, chunk: int) -> None:
    check_both(*world(images), chunk=chunk)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("seed", range(3))
def test_equals_sorting_with_ties(seed: int) -> None:
    """Few distinct embeddings, at different norms: most comparisons are ties, and they count against us."""
    generator = np.random.default_rng(seed)
    kinds = generator.normal(size=(6, 16)).astype(np.float32)
    image = kinds[generator.integers(0, 6, 50)] * generator.uniform(0.1, 10, (50, 1)).astype(np.float32)
    owner = generator.permutation(np.repeat(np.arange(50), 3))
    text = kinds[generator.integers(0, 6, 150)] * generator.uniform(0.1, 10, (150, 1)).astype(np.float32)
    check_both(image, text, owner, chunk=32)


def test_agrees_with_scikit_learn_on_average_precision() -> None:
    image, text, owner = world(images=30, captions=4)
    scores = slow.cosines(image, text)
    expected = np.mean([average_precision_score(owner == i, scores[i]) for i in range(len(image))])
    assert retrieval_metrics(image, text, owner).image_to_text.map == pytest.approx(expected, rel=1e-12)


def test_known_by_hand() -> None:
    """Two images on the axes; captions at 10, 80, 60 degrees belong to the first, at 50 to the second."""
    angle = np.deg2rad([10, 80, 60, 50])
    text = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    result = retrieval_metrics(np.eye(2), text, [0, 0, 0, 1], ks=[1, 2, 3])
    np.testing.assert_array_equal(result.text_to_image.ranks, [1, 2, 2, 1])
    np.testing.assert_array_equal(result.image_to_text.ranks, [1, 3])
    assert result.text_to_image.recall == {1: 0.5, 2: 1.0, 3: 1.0}
    assert result.image_to_text.recall == {1: 0.5, 2: 0.5, 3: 1.0}
    assert result.text_to_image.mrr == result.text_to_image.map == 0.75
    assert result.image_to_text.mrr == pytest.approx((1 + 1 / 3) / 2)
    assert result.image_to_text.map == pytest.approx(((1 + 2 / 3 + 3 / 4) / 3 + 1 / 3) / 2)
    assert result.text_to_image.median_rank == 1.5
    assert result.recall_sum == pytest.approx(4.5)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("width", [3, 64, 513])
def test_a_duplicate_always_counts_against_us(width: int) -> None:
    """Wherever in the matrix product the copy of a right answer lies, it ties with it, to the last bit."""
    generator = np.random.default_rng(width)
    image = generator.normal(size=(130, width)).astype(np.float32)
    image[65:] = image[:65]
    text = (image + 0.01 * generator.normal(size=image.shape)).astype(np.float32)
    text[65:] = text[:65]
    result = retrieval_metrics(image, text, np.arange(130), chunk=48)
    assert result.text_to_image.ranks.min() == result.image_to_text.ranks.min() == 2
    assert result.text_to_image.recall[1] == result.image_to_text.recall[1] == 0
    assert result.text_to_image.mrr == result.image_to_text.map == 0.5


def test_a_collapsed_model_finds_nothing() -> None:
    """All embeddings equal, or all zero: every candidate stands before the right one."""
    for rows in (np.ones((60, 5)), np.zeros((60, 5)), np.full((60, 5), 1e-3) * np.arange(1, 61)[:, None]):
        result = retrieval_metrics(rows[:20], rows, np.arange(60) // 3)
        assert set(result.text_to_image.ranks) == {20}
        assert set(result.image_to_text.ranks) == {58}
        assert result.recall_sum == 0


@pytest.mark.usefixtures("settled")
def test_nearly_collapsed_models_are_ranked_exactly() -> None:
    """Cosines that differ by less than float32 can tell, so that everything is compared again in float64."""
    generator = np.random.default_rng(0)
    image = 1 + 1e-3 * generator.normal(size=(40, 32))
    text = 1 + 1e-3 * generator.normal(size=(120, 32))
    check_both(image, text, generator.integers(0, 40, 120), chunk=64)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_close_calls_are_settled_in_float64(share: float) -> None:
    """Copies that are worse or better by 1e-9 in cosine: too little for float32, enough to decide."""
    generator = np.random.default_rng(1)
    image = generator.normal(size=(80, 16))
    owner = np.repeat(np.arange(80), 2)
    text = image[owner] + 0.3 * generator.normal(size=(160, 16))
    close = generator.random(160) < share
    text[close] = np.roll(text, 3, axis=0)[close] + 1e-9 * generator.normal(size=(close.sum(), 16))
    check_both(image, text, owner, chunk=50)


def test_dtypes_containers_and_norms_agree() -> None:
    image, text, owner = world()
    image, text = image.astype(np.float16), text.astype(np.float16)
    expected = retrieval_metrics(image, text, owner)
    frozen = image.copy()
    frozen.setflags(write=False)  # as a memory map is
    variants = [
        (frozen, text.astype(np.float64), owner.tolist()),
        (torch.from_numpy(image), torch.from_numpy(text).double(), torch.from_numpy(owner)),
        (
            torch.from_numpy(image).float().requires_grad_() * 100,
            torch.from_numpy(text),
            owner.astype(np.int16),
        ),
    ]
    for variant in variants:
        result = retrieval_metrics(*variant)
        np.testing.assert_array_equal(result.text_to_image.ranks, expected.text_to_image.ranks)
        np.testing.assert_array_equal(result.image_to_text.ranks, expected.image_to_text.ranks)
        assert result.image_to_text.map == expected.image_to_text.map
    exact = torch.from_numpy(image).bfloat16(), torch.from_numpy(text).bfloat16()
    expected = slow.retrieval(exact[0].float().numpy(), exact[1].float().numpy(), owner)
    np.testing.assert_array_equal(
        retrieval_metrics(*exact, owner).text_to_image.ranks, expected["text_ranks"]
    )


def test_inputs_are_left_as_they_were() -> None:
    image, text, owner = (torch.from_numpy(item) for item in world())
    before = image.clone(), text.clone(), owner.clone()
    retrieval_metrics(image.double(), text, owner)
    assert all(torch.equal(a, b) for a, b in zip((image, text, owner), before, strict=True))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_broken_embeddings_find_nothing_and_are_found_by_nobody(broken: float) -> None:
    image = np.eye(6)
    text = np.repeat(np.eye(6), 2, axis=0)
    owner = np.arange(12) // 2
    image[2, 0] = broken  # image 2 is lost to its captions 4 and 5
    text[7, 1] = broken  # caption 7 is lost, image 3 still has caption 6
    result = retrieval_metrics(image, text, owner)
    np.testing.assert_array_equal(result.text_to_image.ranks, [1, 1, 1, 1, 6, 6, 1, 6, 1, 1, 1, 1])
    np.testing.assert_array_equal(result.image_to_text.ranks, [1, 1, 11, 1, 1, 1])
    lost = 2 / 12  # caption 7 behind caption 6 and all ten others
    assert result.image_to_text.map == pytest.approx((4 * 1 + (1 / 11 + 2 / 12) / 2 + (1 + lost) / 2) / 6)


def test_zero_rows_score_zero() -> None:
    """Unlike broken ones they are found, before what points the other way."""
    result = retrieval_metrics(np.array([[1.0, 0], [0, 0]]), np.array([[-1.0, 0], [1, 0]]), [0, 1])
    np.testing.assert_array_equal(result.text_to_image.ranks, [2, 2])
    np.testing.assert_array_equal(result.image_to_text.ranks, [2, 2])
    other = retrieval_metrics(np.array([[1.0, 0], [0, 0]]), np.array([[1.0, 0], [-1, 0]]), [0, 1])
    np.testing.assert_array_equal(other.text_to_image.ranks, [1, 1])


def test_images_without_captions_are_candidates_only() -> None:
    image = np.array([[1.0, 0], [0, 1], [1, 0.1]])
    text = np.array([[1.0, 0.1], [0, 1]])
    result = retrieval_metrics(image, text, [0, 1])
    np.testing.assert_array_equal(result.text_to_image.ranks, [2, 1])
    np.testing.assert_array_equal(result.image_to_text.queries, [0, 1])
    np.testing.assert_array_equal(result.image_to_text.ranks, [1, 1])
    np.testing.assert_array_equal(result.text_to_image.queries, [0, 1])
    check_both(image, text, np.array([0, 1]))


def test_average_precision_can_be_left_out() -> None:
    image, text, owner = world()
    full, short = (retrieval_metrics(image, text, owner, average_precision=flag) for flag in (True, False))
    assert short.image_to_text.map is None
    assert short.text_to_image.map == full.text_to_image.map
    assert short.image_to_text.recall == full.image_to_text.recall
    assert short.image_to_text.mrr == full.image_to_text.mrr


def test_never_more_scores_than_chunk_by_chunk() -> None:
    image, text, owner = world(images=60, captions=4)
    products = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function in (torch.mm, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__):
                products.append(result.numel())
            return result

    with Watch():
        retrieval_metrics(image, text, owner, chunk=10)
    assert sum(products) >= 60 * 260
    assert max(products) == 100


@pytest.mark.parametrize(
    "owner, message",
    [
        ([0, 1], "image_of_text: expects 3 integers, got int64 of shape"),
        ([0, 1, 5], r"image_of_text\[2\] = 5: expects a number from 0 to 1"),
        ([0, -1, 1], r"image_of_text\[1\] = -1"),
        (np.array([0.0, 1.0, 1.0]), "got float64"),
        (np.array([True, False, True]), "got bool"),
        (np.array([[0], [1], [1]]), r"shape \(3, 1\)"),
    ],
)
def test_bad_image_of_text(owner: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(np.eye(2), np.ones((3, 2)), owner)


@pytest.mark.parametrize(
    "image, text, options",
    [
        (np.eye(2), np.ones((3, 4)), {}),
        (np.ones(2), np.ones((3, 2)), {}),
        (np.ones((0, 2)), np.ones((3, 2)), {}),
        (np.eye(2), np.ones((3, 2)), {"chunk": 0}),
        (np.eye(2), np.ones((3, 2)), {"ks": (0, 1)}),
        (np.eye(2), np.ones((3, 2)), {"ks": ()}),
    ],
)
def test_bad_shapes_and_settings(image: np.ndarray, text: np.ndarray, options: dict) -> None:
    with pytest.raises(ValueError, match="retrieval: "):
        retrieval_metrics(image, text, [0, 0, 1], **options)


def test_folds_are_the_mean_of_their_parts() -> None:
    image, text, owner = world(images=20)
    result = retrieval_folds(image, text, owner, folds=3)
    parts, captions = [], []
    for low, high in ((0, 7), (7, 14), (14, 20)):
        chosen = np.flatnonzero((owner >= low) & (owner < high))
        captions.append(chosen)
        parts.append(retrieval_metrics(image[low:high], text[chosen], owner[chosen] - low))
    for name in ("text_to_image", "image_to_text"):
        mean, folds = getattr(result, name), [getattr(part, name) for part in parts]
        for number in ("mrr", "map", "median_rank"):
            assert getattr(mean, number) == pytest.approx(np.mean([getattr(fold, number) for fold in folds]))
        assert mean.recall == pytest.approx(
            {k: np.mean([fold.recall[k] for fold in folds]) for k in (1, 5, 10)}
        )
        np.testing.assert_array_equal(mean.ranks, np.concatenate([fold.ranks for fold in folds]))
    np.testing.assert_array_equal(result.text_to_image.queries, np.concatenate(captions))
    np.testing.assert_array_equal(result.image_to_text.queries, np.arange(20))
    tensors = torch.from_numpy(image), torch.from_numpy(text), torch.from_numpy(owner)
    assert retrieval_folds(*tensors, folds=3).text_to_image.recall == result.text_to_image.recall


def test_bad_folds() -> None:
    image, text, owner = world(images=20)
    with pytest.raises(ValueError, match="folds = 21"):
        retrieval_folds(image, text, owner, folds=21)
    with pytest.raises(ValueError, match="images 10 to 19 have no captions"):
        retrieval_folds(image, text, owner % 10, folds=2)
