"""Interpolates the weights of two models of one architecture: WiSE-FT."""

import copy

import torch

from workbench.errors import SettingError
from workbench.models.dual_encoder import DualEncoder


@torch.no_grad()
def interpolate(a: DualEncoder, b: DualEncoder, alpha: float) -> DualEncoder:
    """A model with the weights (1 - `alpha`) a + `alpha` b, in evaluation mode. `a` and `b` are unchanged.

    The sum, including running batch statistics, is computed in float32; 0 is `a` and 1 is `b`, bit for bit.
    Integer buffers are those of `b`. Source: Wortsman et al. 2022, arXiv 2109.01903, where `a` is the
    zero-shot and `b` the fine-tuned model. Raises SettingError if `alpha` is outside [0, 1] or if the models
    differ in architecture, transform or tokenizer.
    """
    if not 0 <= alpha <= 1:
        raise SettingError("alpha", alpha, "no point between two models", "0 for A, 1 for B, or between")
    _check_alike(a, b)
    between = copy.deepcopy(b)
    first = a.clip.state_dict()
    for name, second in between.clip.state_dict().items():
        if second.is_floating_point():
            start = first[name].to(second.device, torch.float32)
            second.copy_(torch.lerp(start, second.float(), alpha))
    return between.eval()


def _check_alike(a: DualEncoder, b: DualEncoder) -> None:
    remedy = "Two states of one model: as it was before training, and after."
    states = a.clip.state_dict(), b.clip.state_dict()
    for name in sorted({*states[0], *states[1]}):
        of_a, of_b = (tuple(state[name].shape) if name in state else "missing" for state in states)
        if of_a != of_b:
            problem = f"another architecture than A, where this is {of_a}"
            raise SettingError("B", f"{name} {of_b}", problem, remedy)
    first, second = a.fingerprint(), b.fingerprint()
    for part in ("model", "transform", "tokenizer"):
        if first[part] != second[part]:
            problem = f"the {part} of B is configured unlike that of A"
            raise SettingError("B", f"{part} {second[part][:12]}", problem, remedy)
