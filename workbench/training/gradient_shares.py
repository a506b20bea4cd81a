"""Measures where the gradient comes from: the norm of each term's gradient at the student's embeddings."""

import torch

from workbench.objectives import DistillationLoss
from workbench.objectives.registry import LossInputs
from workbench.training.learner import BatchTargets, Outputs


@torch.enable_grad()
def gradient_shares(
    mixture: DistillationLoss, outputs: Outputs, targets: BatchTargets
) -> dict[str, torch.Tensor]:
    """Each weighted term's share in the sum of all terms' gradient norms, on this process's own pairs.

    The gradient is that of weight times term with respect to the student's embeddings: of pictures, of
    captions and, for masked features, of masked pictures. Only the values of `outputs` are used,
    not their graph, and no parameter receives a gradient. All shares are 0 if all gradients are.
    """
    image, text = (side.detach().requires_grad_() for side in outputs[:2])
    masked, moved = outputs.masked_image, torch.zeros_like(image, requires_grad=True)
    if masked is not None:
        # The head is linear, so the gradient of a masked picture's embedding follows from its projection's.
        masked = masked.detach() + mixture.project(moved, text)[0]
        masked = masked - mixture.project(torch.zeros_like(image), text)[0]
    inputs = LossInputs(
        image,
        text,
        *mixture.project(image, text),
        outputs.scale.detach(),
        masked_image=masked,
        false_text=outputs.false_text,
        chunk=mixture.chunk,
        direction_weights=mixture.direction_weights,
        temperature=mixture.temperature,
        **targets._asdict(),
    )
    norms = {}
    for name, weight in mixture.weights.items():
        value = weight * mixture.value(name, inputs)
        gradients = torch.autograd.grad(value, (image, text, moved), retain_graph=True, allow_unused=True)
        squares = [gradient.double().square().sum() for gradient in gradients if gradient is not None]
        norms[name] = torch.stack(squares).sum().sqrt()
    total = torch.stack(list(norms.values())).sum()
    return {name: norm / torch.where(total > 0, total, 1.0) for name, norm in norms.items()}
