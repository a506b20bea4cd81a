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
        torch.nn.functional.cross_entropy(each, torch.arange(6)) for each in (logits, logits.T)
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
