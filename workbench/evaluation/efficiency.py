"""The inference cost of a model: parameters, and operations for one picture and one caption."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from workbench.models.dual_encoder import DualEncoder

CAPTION = "a small red apple left of a large green tree on a blue background"


class Efficiency(NamedTuple):
    """The costs of a two-tower model. A multiply-add counts as two `operations`."""

    image_parameters: int
    text_parameters: int  # including the scale, which belongs to neither tower
    image_operations: int
    text_operations: int

    @property
    def parameters(self) -> int:
        """The parameters of the whole model."""
        return self.image_parameters + self.text_parameters

    @property
    def operations(self) -> int:
        """The operations for one picture and one caption."""
        return self.image_operations + self.text_operations


def model_efficiency(model: DualEncoder, caption: str = CAPTION) -> Efficiency:
    """Count parameters, and the operations of matrix products and convolutions for a picture and `caption`.

    Multiplications and additions are counted separately; half the number is the common count of
    multiply-adds. The caption is padded like the model pads it, usually to the full context. The model is not
    changed.
    """
    image = sum(parameter.numel() for parameter in model.clip.visual.parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    device = model.mean.device
    picture = torch.zeros(1, 3, *model.transform.size, dtype=torch.uint8, device=device)
    tokens = model.tokenize([caption]).to(device)
    training, counts = model.training, []
    model.eval()  # otherwise the picture would change batch statistics
    try:
        for encode, example in ((model.encode_image, picture), (model.encode_text, tokens)):
            # With gradients and without fused attention kernels, whose operations are not counted.
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                encode(example)
            counts.append(int(counter.get_total_flops()))
    finally:
        model.train(training)
    return Efficiency(image, total - image, *counts)


@torch.no_grad()
def model_milliseconds(
    model: DualEncoder, caption: str = "a dog on a beach", repeats: int = 15
) -> tuple[float, float]:
    """The median time that one picture and one caption take on this machine, with torch's threads as they
    are; decoding of files is not in it."""
    model.eval()
    device = model.mean.device
    picture = torch.zeros(1, 3, *model.transform.size, dtype=torch.uint8)

    def text() -> object:
        return model.encode_text(model.tokenize([caption]).to(device)).cpu()

    def median(compute: Callable[[], object]) -> float:
        seconds = []
        for _ in range(repeats + 3):  # the first ones warm up
            began = time.perf_counter()
            compute()
            seconds.append(time.perf_counter() - began)
        return 1000 * statistics.median(seconds[3:])

    return median(lambda: model.embed_images(picture)), median(text)
