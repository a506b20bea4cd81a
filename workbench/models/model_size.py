"""Refuses a model of absurd sizes before it is built, which would take minutes or all of the memory."""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module

# The sizes in an open_clip configuration. Memory bounds the first, but not always the second.
SIZES = ("embed_dim", "width", "heads", "head_width", "patch_size", "vocab_size")
LIMITS = {"layers": 1_000, "image_size": 4_096, "context_length": 1_000_000}
MOST_TENSORS = 20_000  # open_clip's own models have 2,000 at most
FLOAT = 4  # bytes


class WrongSize(ValueError):
    """A model that cannot work, or that this machine cannot hold."""


def check_size(model: str, config: Mapping[str, Any]) -> None:
    """Raise WrongSize unless the sizes in `config` make sense, and open_clip's `model` fits into the memory.

    For the latter it is built without memory, on torch's meta device. What fails there for other reasons is
    left to open_clip.
    """
    import open_clip

    for part in (config, config.get("vision_cfg"), config.get("text_cfg")):
        given = part if isinstance(part, dict) else {}
        sizes = {name: _sizes(given, name) for name in (*SIZES, *LIMITS)}
        if min(sizes["image_size"], default=math.inf) < max(sizes["patch_size"], default=1):
            raise WrongSize("its image_size is below its patch_size")
    with torch.random.fork_rng(devices=[]), torch.device("meta"), _refused_where_too_large():
        try:
            open_clip.create_model(model, device="meta", load_weights=False, pretrained_text=False)
        except WrongSize:
            raise
        except Exception:
            return


def check_vocabulary(tokens: Tensor, text: Mapping[str, Any]) -> None:
    """Raise WrongSize if the text tower that `text` describes has no embedding for one of these tokens."""
    size, last = text.get("vocab_size", math.inf), int(tokens.max())
    if "hf_model_name" not in text and last >= size:
        raise WrongSize(f"its vocab_size is {size}, and its tokenizer has a token {last}")


def _sizes(part: Mapping[str, Any], name: str) -> list[int]:
    """The size or sizes of a name; none for a part that has no such size."""
    value = part.get(name)
    sizes = value if isinstance(value, list) else [] if value is None else [value]
    for size in sizes:
        if not isinstance(size, int) or not 1 <= size <= LIMITS.get(name, math.inf):
            limit = f" to {LIMITS[name]:,}" if name in LIMITS else ""
            raise WrongSize(f"its {name} is {size!r} and not a whole number from 1{limit}")
    return sizes


@contextlib.contextmanager
def _refused_where_too_large() -> Iterator[None]:
    """Raise WrongSize as soon as the modules made in the block exceed the memory or have too many tensors."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = tensors = 0

    def add(_module: object, _name: str, tensor: Tensor | None) -> None:
        nonlocal needed, tensors
        needed += 0 if tensor is None else FLOAT * tensor.numel()
        tensors += 1
        if needed > memory:
            sizes = f"{needed / 2**30:,.0f} GiB, and this machine has {memory / 2**30:,.0f}"
            raise WrongSize(f"it takes more than {sizes}")
        if tensors > MOST_TENSORS:
            raise WrongSize(f"it has more than {MOST_TENSORS:,} weights: too many layers")

    hooks = (
        module.register_module_parameter_registration_hook(add),
        module.register_module_buffer_registration_hook(add),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
