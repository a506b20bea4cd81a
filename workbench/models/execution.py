"""Options of a student's computation: gradient checkpointing, compiled towers, synchronised BatchNorm."""

from typing import Any

import torch
import torch.distributed as dist
from open_clip.timm_model import TimmModel
from open_clip.transformer import Transformer
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from workbench.errors import SettingError
from workbench.models.dual_encoder import DualEncoder


def towers(model: DualEncoder) -> dict[str, Any]:
    """The modules that hold the blocks of the image and of the text tower."""
    clip = model.clip
    return {"image": clip.visual, "text": clip.text if hasattr(clip, "text") else clip.transformer}


def checkpoint_gradients(model: DualEncoder) -> None:
    """Drop the activations within the blocks of both towers, and recompute them for the gradient.

    Raises SettingError for a tower without support, and for BatchNorm that updates its statistics, which
    would count every picture twice. Chen et al. 2016, arXiv 1604.06174.
    """
    setting = "training.gradient_checkpointing"
    if model.trains_batch_statistics:
        problem = "BatchNorm would see every picture twice and count it twice in its statistics"
        raise SettingError(setting, True, problem, "false, or student.freeze_batch_norm=true")
    for side, tower in towers(model).items():
        if not any(parameter.requires_grad for parameter in tower.parameters()):
            continue
        for module in tower.modules():
            # transformers', which called gradient_checkpointing_enable above
            enable = getattr(module, "activation_checkpointing_enable", None) or getattr(
                module, "gradient_checkpointing_enable", None
            )
            if enable is not None:
                enable({"use_reentrant": False})
                module.disable_input_require_grads()
            elif isinstance(module, Transformer):  # open_clip's
                module.grad_checkpointing = True
            elif isinstance(module, TimmModel):
                module.set_grad_checkpointing(True)
        flags = ("grad_checkpointing", "gradient_checkpointing")
        if not any(getattr(module, flag, False) for module in tower.modules() for flag in flags):
            problem = f"the {side} tower, a {type(tower).__name__}, does not support it"
            raise SettingError(setting, True, problem, "false, or training.micro_batch to save memory")


def compile_towers(model: DualEncoder) -> None:
    """Compile both towers in place. Names of weights stay the same. The first steps take minutes."""
    for tower in towers(model).values():
        tower.compile()


def synchronise_batch_norm(model: nn.Module) -> None:
    """Make BatchNorm compute its statistics over the pictures of all processes while it updates them."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, _OfAllProcesses):
            kind = type(module)
            module.__class__ = type(f"Synchronised{kind.__name__}", (_OfAllProcesses, kind), {})


class _OfAllProcesses(_BatchNorm):
    """A mixin for classes of BatchNorm, including timm's with an activation.

    torch's own SyncBatchNorm does not support CPU tensors. Processes may have different numbers of pictures.
    """

    def forward(self, images: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized():
            return super().forward(images)
        values = images if images.dtype == torch.float64 else images.float()
        dims = [dim for dim in range(values.ndim) if dim != 1]
        shape = [1, -1] + [1] * (values.ndim - 2)
        local = values.new_full((1,), values.numel() / values.shape[1])
        *sums, count = _Sum.apply(torch.cat([values.sum(dims), local]))
        mean = torch.stack(sums) / count
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(dims)) / count
        with torch.no_grad():
            self._follow(mean, variance * count / (count - 1))
        result = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        result = result.to(images.dtype)
        return self.act(self.drop(result)) if isinstance(self, BatchNormAct2d) else result

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Sum(torch.autograd.Function):
    """The sum over all processes. The gradient of every process's loss returns to each process."""

    @staticmethod
    def forward(context: Any, local: Tensor) -> Tensor:
        total = local.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient
