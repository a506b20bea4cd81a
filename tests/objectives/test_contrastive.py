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
