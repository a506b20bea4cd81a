"""Loads vision models and two-tower models from folders in transformers' format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.models.transform import ImageTransform

BILINEAR = 2  # PIL's number


def parts(folder: Path) -> dict[str, Any]:
    """The parts of a FrozenEncoder from a folder. Raises ValueError without usable weights or views.

    A vision model returns its pooled output, or the first token if its weights have no pooling layer.
    """
    from transformers import AutoImageProcessor, AutoModel

    model, loading = AutoModel.from_pretrained(
        folder, output_loading_info=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
    )
    missing = sorted(loading["missing_keys"])
    two_towers = hasattr(model, "get_image_features") and hasattr(model, "get_text_features")
    pooled = not (missing and all(name.startswith("pooler.") for name in missing))
    if loading["mismatched_keys"] or (missing and (pooled or two_towers)):
        raise ValueError(f"its weights lack {len(missing)} of the model's, such as {missing[:1]}")
    if getattr(model.config, "vision_config", None) is None and model.main_input_name != "pixel_values":
        raise ValueError(f"{model.config.model_type} does not take pictures")
    if not pooled:
        model.pooler = None  # it would be random
    processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    config = {k: v for k, v in model.config.to_dict().items() if not k.startswith("_")}
    for key in ("transformers_version", "dtype", "torch_dtype", "architectures"):
        config.pop(key, None)  # these describe the files
    known: dict[str, Any] = {
        "module": model,
        "identity": [repr(sorted(config.items())), pooled],
        "view": view(processor),
    }
    if processor.do_normalize:
        known |= {"mean": processor.image_mean, "std": processor.image_std}
    if not two_towers:
        return known | {"image": lambda pixels: _pooled(model(pixel_values=pixels))}
    text = _reader(model, folder)
    known["identity"].append(text(["two red apples", "naïve façade 🙂 (x_1)"])["input_ids"].tolist())
    if getattr(model, "logit_scale", None) is not None:
        known["scale"] = float(model.logit_scale.exp().detach())
    if getattr(model, "logit_bias", None) is not None:
        known["bias"] = float(model.logit_bias.detach())

    def captions(texts: Sequence[str]) -> Tensor:
        return _pooled(model.get_text_features(**text(texts).to(model.device)))

    return known | {
        "image": lambda pixels: _pooled(model.get_image_features(pixel_values=pixels)),
        "text": captions,
    }


def view(processor: Any) -> Any:
    """The transform that an image processor describes."""
    from workbench.models.frozen_encoder import CentreView

    interpolation = "bilinear" if int(processor.resample) == BILINEAR else "bicubic"
    size, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
    if "shortest_edge" in size:
        edge = int(size["shortest_edge"])
        share = getattr(processor, "crop_pct", None)
        if share:  # ConvNeXt's
            return (
                CentreView(int(edge / share), edge, interpolation)
                if edge < 384
                else _squashed((edge, edge), interpolation)
            )
        return CentreView(edge, int(crop.get("height", edge)), interpolation)
    return _squashed((int(size["height"]), int(size["width"])), interpolation)


def _squashed(size: tuple[int, int], interpolation: str) -> ImageTransform:
    return ImageTransform(size, interpolation, "squash")


def _reader(model: Any, folder: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    length = int(model.config.text_config.max_position_embeddings)
    # SigLIP was trained to attend to its padding. CLIP's attention mask hides it.
    masked = not model.config.model_type.startswith("siglip")
    return lambda texts: tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=length,
        return_tensors="pt",
        return_attention_mask=masked,
    )


def _pooled(output: Any) -> Tensor:
    pooled = getattr(output, "pooler_output", None)
    if pooled is None:
        pooled = output if isinstance(output, Tensor) else output.last_hidden_state[:, 0]
    return pooled.flatten(1)
