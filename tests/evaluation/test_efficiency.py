"""Counts of operations against what the architecture says, and nothing of the model changed by counting."""

import pytest
import torch

from workbench.evaluation import model_efficiency
from workbench.models.loading import load_dual_encoder


def test_a_vision_transformer_by_hand() -> None:
    model = load_dual_encoder("ViT-B-32")
    result = model_efficiency(model)
    width, tokens, layers, out = 768, 50, 12, 512
    block = 12 * width**2 * tokens + 2 * tokens**2 * width  # multiplications of the products, and attention
    image = 3 * 32**2 * width * (tokens - 1) + layers * block + width * out
    assert result.image_operations == pytest.approx(2 * image, rel=0.001)
    width, tokens = 512, 77  # captions are padded to the whole context
    block = 12 * width**2 * tokens + 2 * tokens**2 * width
    assert result.text_operations == pytest.approx(2 * (layers * block + width * out), rel=0.001)
    assert result.parameters == sum(item.numel() for item in model.parameters()) == 151_277_313
    assert result.image_parameters == 87_849_216
    assert result.operations == result.image_operations + result.text_operations


def test_counting_changes_nothing() -> None:
    model = load_dual_encoder("demo_student").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = model_efficiency(model)
    assert model.training and first == model_efficiency(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(item.grad is None for item in model.parameters())
