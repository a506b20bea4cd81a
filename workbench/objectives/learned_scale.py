"""The form of all learnable scales: a multiplier of cosine similarities, within [1, 100]."""

import math

import torch
from torch import Tensor, nn

MAX_LOG_SCALE = math.log(100)


class LearnedScale(nn.Module):
    """exp of a learned logarithm that starts at ln(1 / 0.07), as in CLIP. Calling it returns the multiplier,
    a 0-d tensor."""

    def __init__(self, start: float = 1 / 0.07) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Tensor:
        """The multiplier, in [1, 100]."""
        # clamp() has no gradient at its bounds, and a scale that `clamp_` put there could never leave.
        beyond = (self.log - self.log.clamp(0, MAX_LOG_SCALE)).detach()
        return (self.log - beyond).exp()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamp the logarithm to [0, ln 100]. Call it after each optimiser step."""
        self.log.clamp_(0, MAX_LOG_SCALE)
