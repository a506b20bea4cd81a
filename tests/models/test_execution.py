"""Checkpointed blocks and compiled towers compute what plain ones do; what cannot is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from workbench.errors import SettingError
from workbench.files import read_json, write_json
from workbench.models.dual_encoder import DualEncoder
from workbench.models.execution import checkpoint_gradients, compile_towers
from workbench.models.loading import load_dual_encoder

TINY = str(Path(__file__).parents[1] / "tiny_vit.json")


def student(model: str) -> DualEncoder:
    torch.manual_seed(0)
    return load_dual_encoder(model, freeze_batch_norm=True).train()


def gradients(model: DualEncoder) -> tuple[dict[str, Tensor], list[int]]:
    """The gradients of a simple loss, and the bytes that the graph kept."""
    kept: list[int] = []

    def count(tensor: Tensor) -> Tensor:
        kept.append(tensor.nbytes)
        return tensor

    size = model.transform.size
    images = torch.randint(0, 256, (6, 3, *size), generator=torch.Generator().manual_seed(1))
    tokens = model.tokenize(["a red apple", "two birds", "a dog left of a cat"] * 2)
    torch.manual_seed(5)  # of dropout
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        image, text = model.encode_image(images.to(torch.uint8)), model.encode_text(tokens)
        loss = (image * text).sum() / image.norm()
    loss.backward()
    result = {name: p.grad for name, p in model.clip.named_parameters() if p.grad is not None}
    return result, kept


@pytest.mark.parametrize("model", [TINY, "demo_student", "vit_tiny_16"])
def test_checkpointing_changes_no_gradient_and_keeps_less(model: str) -> None:
    plain, kept = gradients(student(model))
    again = student(model)
    checkpoint_gradients(again)
    result, less = gradients(again)
    assert result.keys() == plain.keys()
    assert [name for name, value in plain.items() if not torch.allclose(result[name], value, atol=1e-6)] == []
    assert sum(less) < 0.6 * sum(kept)


def test_what_cannot_be_checkpointed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"training\.gradient_checkpointing.*twice.*freeze_batch_norm"):
        checkpoint_gradients(load_dual_encoder("demo_student").train())
    config = read_json(Path(TINY))
    config["vision_cfg"] = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    write_json(tmp_path / "resnet.json", config)
    with pytest.raises(SettingError, match="the image tower, a ModifiedResNet, does not support it"):
        checkpoint_gradients(student(str(tmp_path / "resnet.json")))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of dynamo itself
@pytest.mark.slow
def test_compiled_towers_give_the_same_gradients() -> None:
    plain, _ = gradients(student(TINY))
    compiled = student(TINY)
    names = compiled.state_dict().keys()
    compile_towers(compiled)
    assert compiled.state_dict().keys() == names  # checkpoints of both fit both
    result, _ = gradients(compiled)
    for name, value in plain.items():
        torch.testing.assert_close(result[name], value, rtol=1e-3, atol=1e-5, msg=name)
