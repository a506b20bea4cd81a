import pytest
import torch

from workbench.objectives.similarity import check_batch, check_width, unit


def test_unit_promotes_to_one_dtype() -> None:
    half, single = unit(torch.ones(2, 3, dtype=torch.float16), torch.ones(2, 3, dtype=torch.bfloat16))
    assert half.dtype == single.dtype == torch.float32
    first, second = unit(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.float64))
    assert first.dtype == second.dtype == torch.float64
    torch.testing.assert_close(first, second)


def test_unit_at_extreme_norms() -> None:
    rows = torch.tensor([[3e38, 3e38], [1e-45, 0.0], [3e-30, 4e-30], [0.0, 0.0]])
    (result,) = unit(rows)
    expected = torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0], [0.6, 0.8], [0.0, 0.0]])
    torch.testing.assert_close(result, expected)


def test_unit_second_derivative() -> None:
    rows = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradgradcheck(lambda x: unit(x)[0], rows.requires_grad_())


def test_not_a_number_stays_one() -> None:
    (result,) = unit(torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0], [1.0, 1.0]]))
    assert result.isnan().any(dim=1).tolist() == [True, True, False]


def test_checks_name_both_sizes() -> None:
    with pytest.raises(ValueError, match="image 2, text 3"):
        check_batch("loss", image=torch.ones(2, 5), text=torch.ones(3, 5))
    with pytest.raises(ValueError, match="image 5, text 6; do this"):
        check_width("loss", "; do this", image=torch.ones(2, 5), text=torch.ones(2, 6))
    assert check_batch("loss", image=torch.ones(2, 5), text=torch.ones(2, 6)) == 2
