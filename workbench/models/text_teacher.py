"""Language models as teachers: an embedding for each caption, from any model of transformers.

minilm        all-MiniLM-L6-v2, a sentence encoder that is installed with the workbench
smollm2       SmolLM2-135M-Instruct, a small language model; `workbench assets fetch smollm2` downloads it
llama-2-7b    the paper's, from the local hub cache, or from the hub if the recipe allows downloads
others        a folder in transformers' format, a .gguf file, or a hub name (ORG/NAME)
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import SettingError
from workbench.models.devices import best_device
from workbench.models.loading import hub_access, quiet_loading
from workbench.models.sentence_encoder import read_sentence_encoder
from workbench.models.text_teacher_files import SETTING, converted, locate, not_loaded
from workbench.models.tokens import padded

LONGEST = 512  # tokens of a caption that are read, even if the model could read more
# Tokens of a batch with padding. Few are enough for a processor, and small batches need less padding.
CPU_TOKENS, GPU_TOKENS = 1024, 4096
Pooling = Literal["mean", "last", "cls"]


@dataclass(eq=False, repr=False)
class TextTeacher:
    """A frozen language model. `embed` returns [n, dim] for n captions, and `fingerprint` identifies the
    embeddings.

    `pooling` "mean" averages the states of a caption's tokens. `skip_bos` leaves out the BOS token that a
    causal model starts with. "last" and "cls" take the state of the last and of the first token.
    """

    model: Any
    tokenizer: Any
    _: KW_ONLY
    pooling: Pooling
    layer: int | None
    skip_bos: bool
    normalise: bool
    max_tokens: int
    lower_case: bool = False
    prompt: str = ""  # before every caption

    def __post_init__(self) -> None:
        self.model.eval()
        self.dim = int(self.model.config.hidden_size)

    @property
    def dtype(self) -> str:
        """The precision of its weights, e.g. "float32"."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines the embeddings: the architecture, a sample of every weight, the
        tokenization and the pooling."""
        config = {key: value for key, value in self.model.config.to_dict().items() if not key.startswith("_")}
        for key in ("transformers_version", "quantization_config", "dtype", "torch_dtype", "architectures"):
            config.pop(key, None)  # these describe the files
        weights = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            weights.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            # A few thousand numbers of each tensor. All of a large model's would take minutes.
            sample = tensor.detach().flatten()[:: max(1, tensor.numel() // 4096)].cpu().contiguous()
            weights.update(sample.view(torch.uint8).numpy().tobytes())
        probe = self.tokens(["two red apples", "the Eiffel tower, 1889", "naïve façade 🙂 (x_1)"])
        return {
            "config": hashlib.sha256(repr(sorted(config.items())).encode()).hexdigest(),
            "weights": weights.hexdigest(),
            "tokens": hashlib.sha256(repr(probe).encode()).hexdigest(),
            **{
                name: getattr(self, name)
                for name in ("pooling", "layer", "skip_bos", "normalise", "max_tokens")
            },
        }

    def tokens(self, captions: Sequence[str]) -> list[list[int]]:
        """The token ids of each caption: at least one and at most `max_tokens`."""
        texts = [self.prompt + caption for caption in captions]
        texts = [text.lower() for text in texts] if self.lower_case else texts
        rows = self.tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"]
        # Without special tokens an empty caption has no token, and pooling needs at least one.
        filler = self.tokenizer.eos_token_id or 0
        return [ids or [filler] for ids in rows]

    @torch.no_grad()
    def embed(
        self,
        captions: Sequence[str],
        *,
        batch_tokens: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Float[np.ndarray, "n dim"]:
        """The embeddings of `captions`, float32, in the same order.

        Equal captions are embedded once. Batches are sorted by length and hold up to `batch_tokens` tokens
        with padding (None: 1,024 on a CPU, 4,096 elsewhere), or a single longer caption.
        `progress` is called with the number of captions that each batch has finished.
        """
        budget = batch_tokens or (CPU_TOKENS if self.model.device.type == "cpu" else GPU_TOKENS)
        unique, position = np.unique(np.asarray(captions, dtype=object), return_inverse=True)
        copies = np.bincount(position, minlength=len(unique))
        ids = self.tokens(list(unique)) if len(unique) else []
        embeddings = np.empty((len(unique), self.dim), dtype=np.float32)
        for rows in _batches([len(row) for row in ids], budget):
            embeddings[rows] = self._forward([ids[row] for row in rows])
            if progress:
                progress(int(copies[rows].sum()))
        return embeddings[position]

    def _forward(self, ids: list[list[int]]) -> np.ndarray:
        tokens, mask = padded(ids, 0, self.model.device)
        inputs = {"input_ids": tokens, "attention_mask": mask.long()}
        if self.layer is None:
            states = self.model(**inputs).last_hidden_state
        else:
            states = self.model(**inputs, output_hidden_states=True).hidden_states[self.layer]
        pooled = self._pool(states.float(), mask, tokens)
        return (torch.nn.functional.normalize(pooled, dim=1) if self.normalise else pooled).cpu().numpy()

    def _pool(self, states: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        if self.pooling == "cls":
            return states[:, 0]
        if self.pooling == "last":
            return states[torch.arange(len(states)), mask.sum(1) - 1]
        bos = self.tokenizer.bos_token_id
        if self.skip_bos and bos is not None:
            # Its state does not depend on the caption, and its norm is many times that of the others.
            alone = mask.sum(1) == 1
            mask = mask.clone()
            mask[:, 0] &= (ids[:, 0] != bos) | alone
        return torch.where(mask[..., None], states, 0).sum(1) / mask.sum(1, keepdim=True)


def load_text_teacher(
    model: str,
    *,
    pooling: Pooling | None = None,
    layer: int | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str | torch.device | None = None,
    allow_download: bool = False,
) -> TextTeacher:
    """Load a language model: one of `NAMES`, a folder, a .gguf file or a hub name.

    `pooling` None is a sentence encoder's own, otherwise the mean without the BOS token. A sentence encoder,
    given by folder or hub name, reads and normalises as in sentence-transformers. `layer` selects the hidden
    states to pool: 0 for the token embeddings, negative from the end, None for the model's output.
    `precision` "auto" is bfloat16 if the device has units for it. `device` None is a GPU if there is one.
    Raises SettingError if the model is missing, cannot be loaded, has no such layer, or pools in an
    unsupported way. Downloads only if `allow_download`.
    """
    device = best_device() if device is None else device
    if precision == "auto":
        precision = default_precision(device)
    source = Path(locate(model, allow_download))
    if source.suffix == ".gguf":
        source = converted(source)
    own = read_sentence_encoder(source, SETTING)
    loaded, tokenizer = _load(own.get("path", source), model, allow_download)
    layers = int(loaded.config.num_hidden_layers)
    if layer is not None and not -layers - 1 <= layer <= layers:
        raise SettingError("text_teacher.layer", layer, f"the model has {layers} layers", f"0 to {layers}")
    if pooling is None and own.get("pooling", "mean") not in get_args(Pooling):
        problem = f"it pools by {own['pooling']!r}"
        raise SettingError("text_teacher.pooling", None, problem, f"one of {', '.join(get_args(Pooling))}")
    if pooling is None and not own and not allow_download and _may_be_half(source, loaded):
        print(
            f"{model}: the hub cache holds no modules.json, so its tokens are averaged. If it is a sentence "
            f"encoder, `hf download {model}` downloads its own pooling.",
            file=sys.stderr,
        )
    max_tokens = min(
        own.get("max_seq_length") or tokenizer.model_max_length,
        getattr(loaded.config, "max_position_embeddings", None) or LONGEST,
        LONGEST,
    )
    return TextTeacher(
        loaded.to(device=device, dtype=getattr(torch, precision)),
        tokenizer,
        pooling=pooling or own.get("pooling", "mean"),
        layer=layer,
        skip_bos=not own,  # a sentence encoder was trained with it
        normalise=own.get("normalise", False),
        max_tokens=max_tokens,
        lower_case=own.get("lower_case", False),
        prompt=own.get("prompt", ""),
    )


def default_precision(device: str | torch.device = "cpu") -> Literal["float32", "bfloat16"]:
    """bfloat16 if the device has units for it, otherwise float32."""
    return "bfloat16" if has_bfloat16_units(device) else "float32"


def has_bfloat16_units(device: str | torch.device = "cpu") -> bool:
    """Whether matrix products in bfloat16 are much faster than in float32: GPUs since Ampere, CPUs with AMX
    (2.6 to 5.7 times, measured) or AVX512-BF16 (2.1 times on AMD's Zen 4, measured)."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def _batches(lengths: Sequence[int], budget: int) -> Iterator[np.ndarray]:
    """Rows sorted by length, longest first, in batches of at most `budget` padded tokens, or one row."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        count = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + count]
        start += count


def _may_be_half(folder: Path, model: Any) -> bool:
    """True for an encoder in the hub's cache, whose files for sentence-transformers may not be there."""
    causal = any(name.endswith("ForCausalLM") for name in model.config.architectures or ())
    return folder.parent.name == "snapshots" and not causal


def _load(folder: Path, name: str, allow_download: bool) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    try:
        with hub_access(False), quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model = AutoModel.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
    except Exception as error:
        raise not_loaded(name, error, allow_download) from error
    return model.get_encoder() if model.config.is_encoder_decoder else model, tokenizer
