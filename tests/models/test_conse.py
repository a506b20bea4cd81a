"""The photo teacher: what its parts compute, and photographs that it knows without any training."""

import torch
from sklearn.datasets import load_sample_image
from torch.nn.functional import normalize

from workbench.models.conse import REGRESSION_SHARE, ConSE
from workbench.models.loading import load_dual_encoder


def test_an_embedding_is_the_mean_of_names_weighted_with_probabilities_and_a_regression():
    torch.manual_seed(0)
    tower, features = ConSE(), torch.randn(3, 1280)
    for row, embedding in zip(features, tower(features), strict=True):
        scores = (tower.logits.weight @ row + tower.logits.bias).exp()
        average = sum(score * name for score, name in zip(scores, tower.names.weight.T, strict=True))
        regression = tower.regression.weight @ row
        expected = average / average.norm() + REGRESSION_SHARE * regression / regression.norm()
        torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_photo_teacher_tells_photographs_apart_by_words():
    teacher = load_dual_encoder("photo_teacher").eval()
    assert teacher.weights_from and teacher.dim == 384
    names = ("flower.jpg", "china.jpg")
    photographs = [torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1) for name in names]
    images = normalize(teacher.embed_images(torch.stack([teacher.transform(one) for one in photographs])))
    captions = ["a red flower with thin petals", "an old Chinese temple with a large roof"]
    texts = normalize(teacher.encode_text(teacher.tokenize(captions)))
    assert (images @ texts.T).argmax(1).tolist() == [0, 1]
    assert (images @ texts.T).argmax(0).tolist() == [0, 1]
