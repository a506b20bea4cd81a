"""Which places of a picture, and which words of a caption, the match of a two-tower model rests on."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from workbench.errors import SettingError
from workbench.models.dual_encoder import DualEncoder
from workbench.models.masking import PlainTransformer
from workbench.models.tokens import output_of
from workbench.models.transform import Crop, normalised

FEWEST_PLACES = 4  # a side, of a feature map that tells places apart


class Relevance(NamedTuple):
    """What the match of a picture and a caption rests on.

    `heat` [rows, columns], zero or more, is of places in the `window` that the tower sees (left, top, width,
    height as shares of the picture). `word_drops` [S] is how much the `cosine` falls without a word.
    """

    heat: Float[np.ndarray, "rows columns"]
    window: Crop
    words: list[str]
    word_drops: Float[np.ndarray, " s"]
    cosine: float
    method: str


def relevance(model: DualEncoder, picture: UInt8[Tensor, "3 height width"], caption: str) -> Relevance:
    """Explain the match of one picture, of any size, and a caption.

    Plain vision transformers are explained by `attention_relevance`, all other towers by `grad_cam`, and
    words by `word_drops`. The model is put in evaluation mode. Raises SettingError for towers that neither
    can explain.
    """
    model.eval()
    images = model.transform(picture).unsqueeze(0)
    with torch.no_grad():
        text = model.encode_text(model.tokenize([caption]).to(model.mean.device))
    transformer = PlainTransformer.of(model.clip.visual) is not None
    places = (attention_relevance if transformer else grad_cam)(model, images, text)
    words, drops, cosine = word_drops(model, images, caption)
    return Relevance(
        heat=places[0].cpu().numpy(),
        window=model.transform.visible(*picture.shape[1:]),
        words=words,
        word_drops=drops,
        cosine=cosine,
        method="gradient-weighted attention" if transformer else "Grad-CAM",
    )


def attention_relevance(
    model: DualEncoder,
    images: UInt8[Tensor, "batch 3 height width"],
    text: Float[Tensor, "batch dim"],
) -> Float[Tensor, "batch rows columns"]:
    """The relevance of patches to the logit of each picture and the text beside it, for plain transformers.

    Over the layers, R = R + mean_heads(max(0, grad * attention)) R, from R = 1. The result is the row of the
    class token, or the mean row of the patches in towers that average them. Chefer, Gur and Wolf, ICCV 2021
    (arXiv 2103.15679), eq. 5 and 6. An attention pool has no residual, so nothing is added there.
    """
    visual: Any = model.clip.visual
    plain = PlainTransformer.of(visual)
    if plain is None:
        problem = "its image tower is no plain vision transformer"
        raise SettingError("model", type(visual).__name__, problem, "Use grad_cam.")
    with torch.enable_grad(), _attention_weights() as maps:
        logits = _logits(model, images, text)
        gradients = torch.autograd.grad(logits.sum(), maps)
    tokens = maps[0].shape[-1]
    total = torch.eye(tokens, device=logits.device).expand(len(images), -1, -1)
    for weights, gradient in zip(maps, gradients, strict=True):
        step = (gradient * weights).clamp(min=0).mean(1) @ total
        total = total + step if step.shape[1] == tokens else step
    averaged = "avg" in str(getattr(visual, "pool_type", "") or visual.trunk.global_pool)
    row = total[:, plain.first :].mean(1) if averaged else total[:, 0]
    return row[:, plain.first :].unflatten(1, plain.grid).detach()


def grad_cam(
    model: DualEncoder,
    images: UInt8[Tensor, "batch 3 height width"],
    text: Float[Tensor, "batch dim"],
) -> Float[Tensor, "batch rows columns"]:
    """The relevance of places to the logit of each picture and the text beside it, from a feature map.

    max(0, sum_k a_k A_k), where a_k is the mean gradient of the logit by channel k of the map A. Selvaraju et
    al., ICCV 2017 (arXiv 1610.02391), eq. 1 and 2. The map is the last one with at least 4 x 4 places, since
    the very last of a small picture may have a single one. Raises SettingError for towers without maps.
    """
    visual: Any = model.clip.visual
    with torch.enable_grad(), _stage_outputs(visual) as outputs:
        logits = _logits(model, images, text)
        maps = _maps(outputs)
        if not maps:
            problem = "the features of its image tower are no map of places"
            remedy = "Use a convolutional tower, Swin, or a plain vision transformer."
            raise SettingError("model", type(getattr(visual, "trunk", visual)).__name__, problem, remedy)
        sizes = [min(features.shape[axis] for axis in axes) for features, axes in maps]
        wide = [place for place, size in enumerate(sizes) if size >= FEWEST_PLACES]
        features, axes = maps[wide[-1] if wide else int(np.argmax(sizes))]
        (gradient,) = torch.autograd.grad(logits.sum(), features)
    channels = 6 - sum(axes)  # axes 1, 2 and 3 are the channels and the places
    return (gradient.mean(axes, keepdim=True) * features).sum(channels).clamp(min=0).detach()


@torch.no_grad()
def word_drops(
    model: DualEncoder, images: UInt8[Tensor, "1 3 height width"], caption: str
) -> tuple[list[str], Float[np.ndarray, " s"], float]:
    """The words of a caption, how much the cosine with the picture falls without each, and the cosine.

    Negative where a word harms the match. Words are what spaces separate, so models with different tokenizers
    can be compared.
    """
    words = caption.split() or [caption]
    without = [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
    device = model.mean.device
    text = F.normalize(model.encode_text(model.tokenize([caption, *without]).to(device)), dim=-1)
    cosines = (text @ F.normalize(model.encode_image(images.to(device)), dim=-1).T)[:, 0].cpu().numpy()
    return words, cosines[0] - cosines[1:], float(cosines[0])


def _logits(model: DualEncoder, images: Tensor, text: Tensor) -> Tensor:
    # Pixels that ask for a gradient give one to everything above them, in a frozen tower too.
    pixels = normalised(images.to(model.mean.device), model.mean, model.std).requires_grad_()
    image = model.encode_pixels(pixels.contiguous(memory_format=torch.channels_last))
    return model.scale.detach() * F.cosine_similarity(image, text.to(image.device), dim=-1)


@contextlib.contextmanager
def _stage_outputs(visual: Any) -> Iterator[list[tuple[list[Tensor], int]]]:
    """The outputs of a tower's stages and of all of them, in order, with their numbers of channels (0 for a
    ResNet of open_clip), while the context lasts."""
    trunk = getattr(visual, "trunk", visual)
    stages = {stage["module"]: stage["num_chs"] for stage in getattr(trunk, "feature_info", [])}
    stages = stages or {name: 0 for name, _ in trunk.named_children() if name.startswith("layer")}
    with contextlib.ExitStack() as stack:
        outputs = [
            (stack.enter_context(output_of(trunk.get_submodule(name))), channels)
            for name, channels in stages.items()
        ]
        if hasattr(trunk, "forward_features"):
            outputs.append((stack.enter_context(output_of(trunk, "forward_features")), trunk.num_features))
        yield outputs


def _maps(outputs: Sequence[tuple[list[Tensor], int]]) -> list[tuple[Tensor, tuple[int, int]]]:
    """The outputs that are maps, with their axes of places: channels stand last in Swin."""
    return [
        (features, (1, 2) if features.shape[3] == channels != features.shape[1] else (2, 3))
        for stage, channels in outputs
        for features in stage
        if features.ndim == 4
    ]


@contextlib.contextmanager
def _attention_weights() -> Iterator[list[Tensor]]:
    """The weights [batch, heads, queries, keys] of every attention, in order, while the context lasts.

    PyTorch's attention, which open_clip's and timm's layers all call, never forms them, so it is replaced by
    one that does.
    """
    maps: list[Tensor] = []
    fused = F.scaled_dot_product_attention

    def written_out(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        maps.append((scores if attn_mask is None else scores + attn_mask).softmax(-1))
        return maps[-1] @ value

    F.scaled_dot_product_attention = written_out
    try:
        yield maps
    finally:
        F.scaled_dot_product_attention = fused
