"""Words and patches in the space of a model's embeddings, which the cross-modal teacher reads."""

import contextlib
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.models.dual_encoder import DualEncoder
from workbench.models.transform import normalised

SPECIAL = 4  # most tokens that a tokenizer adds to a caption
MOST_COUNTED = 50_000  # captions that are tokenized to count those that are cut
AT_ONCE = 1_000  # captions of one call


def padded(rows: Sequence[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Lists of token ids as one tensor [rows, length], with a mask that is False for padding."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)
    lengths = torch.tensor([[len(row)] for row in rows], device=device)
    return ids.to(device), torch.arange(ids.shape[1], device=device) < lengths


class CaptionTokens(NamedTuple):
    """The words of captions: projected last hidden states, the mask of words, and the captions'
    embeddings."""

    tokens: Float[Tensor, "batch length dim"]
    mask: Bool[Tensor, "batch length"]
    pooled: Float[Tensor, "batch dim"]


def word_mask(model: DualEncoder, ids: Int[Tensor, "batch length"]) -> Bool[Tensor, "batch length"]:
    """True for positions that hold words, False for start, end and padding."""
    tokenizer = model.tokenizer
    if hasattr(tokenizer, "eot_token_id"):
        # Token 0 is both a word and padding here. Words are those before the first end token.
        before_end = (ids == tokenizer.eot_token_id).long().cumsum(1) == 0
        return before_end & (ids != tokenizer.sot_token_id)
    inner = tokenizer.tokenizer
    special = [inner.bos_token_id, inner.eos_token_id, inner.cls_token_id, inner.sep_token_id]
    unused = torch.tensor([token for token in (*special, inner.pad_token_id) if token is not None])
    return ~torch.isin(ids, unused.to(ids.device))


class CutCaptions(NamedTuple):
    """The number of captions that are longer than a model's context, with the first three of them.

    `context` counts tokens, including start and end. `about` is True if the number is estimated from a part
    of the captions.
    """

    cut: int
    captions: int
    context: int
    examples: list[str]
    about: bool = False

    def __str__(self) -> str:
        shown = f", such as {textwrap.shorten(self.examples[0], 70)!r}" if self.examples else ""
        about = "about " if self.about else ""
        return f"{about}{self.cut:,} of {self.captions:,} captions at {self.context} tokens{shown}"


def cut_captions(model: DualEncoder, pairs: Pairs) -> CutCaptions:
    """Count the captions of `pairs` that the model's tokenizer cuts off."""
    tokenizer, captions = model.tokenizer, pc.list_flatten(pairs.table["captions"])
    context = int(tokenizer.context_length)
    # A token has at least one byte, so shorter captions need not be tokenized.
    suspects = captions.filter(pc.greater(pc.binary_length(captions), context - SPECIAL))
    every = max(1, math.ceil(len(suspects) / MOST_COUNTED))
    texts = suspects[::every].to_pylist()
    lengths = (
        length
        for start in range(0, len(texts), AT_ONCE)
        for length in _lengths(tokenizer, texts[start : start + AT_ONCE])
    )
    cut = [text for text, length in zip(texts, lengths, strict=True) if length > context]
    return CutCaptions(every * len(cut), len(captions), context, cut[:3], about=every > 1 and bool(cut))


def _lengths(tokenizer: Any, captions: list[str]) -> list[int]:
    """The number of tokens of each caption before it is cut, with start and end."""
    if not hasattr(tokenizer, "tokenizer"):  # open_clip's own
        return [len(tokenizer.encode(caption)) + 2 for caption in captions]
    with_class = tokenizer.tokenizer_mode == "clips"  # start, end and class token are added afterwards
    cleaned = [tokenizer.clean_fn(caption) for caption in captions]
    rows = tokenizer.tokenizer(
        cleaned, truncation=False, padding=False, add_special_tokens=not with_class, verbose=False
    )
    return [len(ids) + 3 * with_class for ids in rows["input_ids"]]


def words(model: DualEncoder, caption: str) -> list[str]:
    """The tokens of a caption as text, in the order of `caption_tokens`. An empty caption has one."""
    ids = model.tokenize([caption])
    kept = ids[0][word_mask(model, ids)[0]].tolist()
    if not kept:
        return ["(whole caption)"]
    if hasattr(model.tokenizer, "decoder"):
        return [model.tokenizer.decode([token]).strip() for token in kept]
    return [str(piece) for piece in model.tokenizer.tokenizer.convert_ids_to_tokens(kept)]


@torch.no_grad()
def caption_tokens(model: DualEncoder, ids: Int[Tensor, "batch length"]) -> CaptionTokens:
    """Projected last hidden states of a frozen text tower, without start and end, and the embeddings.

    A caption without words has one token, its embedding. Raises SettingError for towers that pool before
    their last norm.
    """
    text: Any = getattr(model.clip, "text", model.clip)
    if hasattr(text, "ln_final"):
        with output_of(text.ln_final) as outputs:
            pooled = model.clip.encode_text(ids)
        hidden, projection = outputs[0], text.text_projection
    elif hasattr(text, "transformer"):
        with output_of(text.transformer) as outputs:
            pooled = model.clip.encode_text(ids)
        hidden, projection = outputs[0].last_hidden_state, text.proj
    else:
        hidden = torch.empty(0)
    if hidden.ndim != 3:
        problem = "its words cannot be projected"
        raise SettingError("teacher.model", type(text).__name__, problem, "Take ViT-B-16, for example")
    tokens, mask = _projected(hidden, projection), word_mask(model, ids)
    wordless = ~mask.any(1)
    mask[wordless, 0] = True
    tokens[wordless, 0] = pooled[wordless]
    return CaptionTokens(tokens, mask, pooled)


@torch.no_grad()
def patch_tokens(
    model: DualEncoder, images: UInt8[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch patches dim"]:
    """The positions of an image tower's last feature map, row by row, each projected like a whole picture.

    Raises SettingError for towers that pool all positions together by attention.
    """
    visual: Any = model.clip.visual
    pixels = normalised(images, model.mean, model.std)
    if hasattr(visual, "trunk"):
        with output_of(visual.trunk, "forward_features") as outputs:
            model.clip.encode_image(pixels)
        return _through_the_head(visual, outputs[0])
    if getattr(visual, "attn_pool", None) is None and hasattr(visual, "ln_post"):
        with output_of(visual.ln_post) as outputs:
            model.clip.encode_image(pixels)
        if outputs[0].ndim == 3:
            return _projected(outputs[0][:, 1:], visual.proj)
    problem = f"the patches of a {type(visual).__name__} cannot be projected"
    raise SettingError("regions.proposer", "patches", problem, "grid")


def _through_the_head(visual: Any, features: Tensor) -> Tensor:
    trunk = visual.trunk
    if features.ndim == 3:
        first = trunk.num_prefix_tokens
        patches = features[:, first:]
        # A head reads the first token, or the mean of those after the prefix, so the patch is repeated.
        single = patches.flatten(0, 1).unsqueeze(1).expand(-1, first + 1, -1)
    elif features.shape[3] == trunk.num_features and features.shape[1] != trunk.num_features:
        patches = features.flatten(1, 2)
        single = patches.flatten(0, 1)[:, None, None]
    else:
        patches = features.flatten(2).transpose(1, 2)
        single = patches.flatten(0, 1)[:, :, None, None]
    return visual.head(trunk.forward_head(single)).unflatten(0, patches.shape[:2])


def _projected(hidden: Tensor, projection: Any) -> Tensor:
    if projection is None:
        return hidden.clone()
    return projection(hidden) if isinstance(projection, nn.Module) else hidden @ projection


@contextlib.contextmanager
def output_of(module: nn.Module, method: str = "forward") -> Iterator[list[Any]]:
    """Collect the outputs of a module within the context."""
    outputs: list[Any] = []
    original = getattr(module, method)

    def watched(*arguments: Any, **named: Any) -> Any:
        outputs.append(original(*arguments, **named))
        return outputs[-1]

    setattr(module, method, watched)
    try:
        yield outputs
    finally:
        delattr(module, method)
