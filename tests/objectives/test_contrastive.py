import math

import pytest
import torch

from workbench.objectives import contrastive_loss


def test_identical_rows_cost_the_logarithm_of_the_batch() -> None:
    same = torch.ones(8, 3)
    assert float(contrastive_loss(same, same, 100)) == pytest.approx(math.log(8), rel=1e-6)


def test_orthogonal_pairs() -> None:
    basis = torch.eye(4, dtype=torch.float64)
    expected = math.log(math.exp(2.0) + 3) - 2.0
    assert float(contrastive_loss(basis, basis, 2)) == pytest.approx(expected, rel=1e-12)


def test_image_and_text_may_be_exchanged() -> None:
    image, text = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(contrastive_loss(image, text, 10.0), contrastive_loss(text, image, 10.0))


def test_directions_weigh_as_told() -> None:
    image, text = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits = 10.0 * torch.nn.functional.normalize(image, dim=1) @ torch.nn.functional.normalize(text, dim=1).T
    to_text, to_image = (
        torch.nn.functional.cross_entropy(item, torch.arange(6)) for item in (logits, logits.T)
    )
    weighed = contrastive_loss(image, text, 10.0, direction_weights=(0.75, 0.25))
    torch.testing.assert_close(weighed, 0.75 * to_text + 0.25 * to_image)
    parts = [
        contrastive_loss(image, text, 10.0, rows=rows, direction_weights=(0.75, 0.25))
        for rows in (slice(0, 2), slice(2, 6))
    ]
    torch.testing.assert_close(sum(parts), weighed)
    with pytest.raises(ValueError, match="direction_weights"):
        contrastive_loss(image, text, 10.0, chunk=2, direction_weights=(0.75, 0.25))


def test_false_captions_are_negatives_of_every_image() -> None:
    """Against the sum written out; those that no picture brings count for nothing."""
    generator = torch.Generator().manual_seed(2)
    image, text, false = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator)
    hard = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0])
    image.requires_grad_(), false.requires_grad_()

    def unit(side):
        return side / side.norm(dim=1, keepdim=True)

    scores = 10 * unit(image) @ unit(text).T
    wrong = 10 * unit(image) @ unit(false)[[0, 2]].T
    to_text = torch.cat([scores, wrong], 1).logsumexp(1) - scores.diagonal()
    to_image = scores.logsumexp(0) - scores.diagonal()
    expected = (to_text.mean() + to_image.mean()) / 2
    loss = contrastive_loss(image, text, 10.0, false_text=false, hard=hard)
    torch.testing.assert_close(loss, expected)
    shares = [
        contrastive_loss(image, text, 10.0, rows=rows, false_text=false, hard=hard)
        for rows in (slice(0, 3), slice(3, 5))
    ]
    torch.testing.assert_close(sum(shares), expected)
    (gradient,) = torch.autograd.grad(loss, false)
    assert gradient[[0, 2]].any(1).all() and not gradient[[1, 3, 4]].any()
    none = contrastive_loss(image, text, 10.0, false_text=false, hard=torch.zeros(5))
    torch.testing.assert_close(none, contrastive_loss(image, text, 10.0))


def test_false_captions_cannot_be_had_in_chunks() -> None:
    sides = torch.randn(3, 4, 2)
    with pytest.raises(ValueError, match="hard negative captions are not supported in chunks"):
        contrastive_loss(sides[0], sides[1], 10.0, chunk=2, false_text=sides[2], hard=torch.ones(4))
