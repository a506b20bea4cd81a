"""Exact match: does an embedding contain a caption word for word, and does an image embedding contain its
content?

A decoder is trained to reconstruct captions from one vector, and then frozen. For every encoder under test
only a linear layer and a LayerNorm before the decoder are trained. The captions that the decoder then writes
for held-out data show what the encoder's embedding contains. Kamath et al. 2023 (arXiv 2305.14897), as used
by Knowledge-CLIP.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.data.load import load_pairs
from workbench.errors import SettingError
from workbench.models.caption_decoder import CaptionDecoder, load_caption_decoder, small_caption_decoder
from workbench.models.devices import best_device
from workbench.recipe import Recipe

VALID = 0.9  # share of its own held-out captions that a decoder must reconstruct for a valid probe
LENGTHS = ((1, 5), (6, 8), (9, 12), (13, None))  # words, the bins of `by_length`


class ExactMatch(NamedTuple):
    """The results of decoding the embeddings of n held-out captions."""

    raw: Bool[np.ndarray, " n"]  # identical
    normalised: Bool[np.ndarray, " n"]  # identical after `normalise`
    token_f1: Float[np.ndarray, " n"]
    words: np.ndarray  # of each true caption
    written: list[str]

    def by_length(self) -> dict[str, tuple[float, int]]:
        """{"6-8": (exact match after normalising, captions)} by number of words; empty bins are skipped."""
        shares = {}
        for low, high in LENGTHS:
            inside = (self.words >= low) & (self.words <= (high or math.inf))
            if inside.any():
                name = f"{low}-{high}" if high else f"{low}+"
                shares[name] = (float(self.normalised[inside].mean()), int(inside.sum()))
        return shares


class Captioning(NamedTuple):
    """The results of decoding image embeddings, one per picture."""

    token_f1: Float[np.ndarray, " n"]  # with the best-fitting of its captions
    object_recall: Float[np.ndarray, " n"]  # share of its objects that are named; NaN without objects
    attribute_recall: Float[np.ndarray, " n"]
    written: list[str]


class Probe(nn.Module):
    """A frozen decoder after a trainable linear layer and LayerNorm: embeddings [n, dim] to captions."""

    def __init__(self, decoder: CaptionDecoder, dim: int) -> None:
        super().__init__()
        self.decoder = [decoder]  # in a list, so that its weights are not registered in this module
        norm = nn.LayerNorm(decoder.dim)
        nn.init.constant_(norm.weight, decoder.deviation)  # the scale of the vectors that the decoder expects
        self.adapter = nn.Sequential(nn.Linear(dim, decoder.dim), norm)

    def fit(
        self,
        embeddings: Float[Tensor, "n dim"],
        captions: Sequence[str],
        *,
        steps: int = 600,
        batch: int = 128,
        lr: float = 3e-3,
        seed: int = 0,
    ) -> "Probe":
        """Train the layers before the decoder. Every encoder gets the same steps, batch and rate."""
        decoder = self.decoder[0]
        embeddings = embeddings.to(decoder.t5.device)
        self.to(decoder.t5.device)
        optimiser = torch.optim.AdamW(self.adapter.parameters(), lr=lr, weight_decay=0.01)
        with frozen(decoder):
            minimise(
                optimiser,
                lambda rows: decoder.loss(self.adapter(embeddings[rows]), [captions[row] for row in rows]),
                [len(caption) for caption in captions],
                steps=steps,
                batch=batch,
                seed=seed,
            )
        return self

    @torch.no_grad()
    def write(self, embeddings: Float[Tensor, "n dim"]) -> list[str]:
        """The captions that the decoder generates greedily."""
        return self.decoder[0].write(self.adapter(embeddings.to(self.decoder[0].t5.device)))


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, without gradients for its parameters, until the block ends."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_()


def minimise(
    optimiser: torch.optim.Optimizer,
    loss: Callable[[list[int]], Tensor],
    lengths: Sequence[int],
    *,
    steps: int,
    batch: int,
    seed: int,
    say: Callable[[int, float], object] | None = None,
) -> None:
    """Minimise `loss` on batches of rows of similar length. The rate rises for a tenth of the steps, then
    falls."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    generator = np.random.default_rng(seed)
    batch = min(batch, len(order))
    rates = [group["lr"] for group in optimiser.param_groups]
    for step in range(steps):
        share = min(1.0, (step + 1) / max(1, steps // 10)) * (1 - step / steps) ** 0.5
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * share
        window = min(4 * batch, len(order))
        start = int(generator.integers(len(order) - window + 1))
        rows = generator.permutation(order[start : start + window])[:batch].tolist()
        optimiser.zero_grad()
        value = loss(rows)
        value.backward()
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if say:
            say(step + 1, float(value.detach()))


def train_decoder(
    decoder: CaptionDecoder,
    captions: Sequence[str],
    *,
    steps: int = 6000,
    batch: int = 128,
    lr: float = 3e-3,
    noise: float = 0.1,
    seed: int = 0,
    say: Callable[[int, float], object] | None = None,
) -> None:
    """Train encoder and decoder together to reconstruct captions from one vector.

    `noise`, in standard deviations of the vectors, keeps captions apart, so that a probe need not reproduce a
    vector exactly. For T5 at full size, lr 1e-4 and about 10 epochs of a million captions are usual.
    """
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=lr, weight_decay=0.01)
    torch.manual_seed(seed)
    decoder.train()

    def loss(rows: list[int]) -> Tensor:
        chosen = [captions[row] for row in rows]
        vectors = decoder.vectors(chosen)
        spread = vectors.detach().std(0).mean()
        return decoder.loss(vectors + noise * spread * torch.randn_like(vectors), chosen)

    lengths = [len(caption) for caption in captions]
    minimise(optimiser, loss, lengths, steps=steps, batch=batch, seed=seed, say=say)
    decoder.eval()
    with torch.no_grad():
        decoder.deviation = float(decoder.vectors(list(captions[:2000])).std(0).mean())


def train_caption_decoder(
    recipe: Recipe,
    folder: str | Path,
    *,
    decoder: str = "small",
    steps: int = 6000,
    batch: int = 128,
    lr: float | None = None,
    say: Callable[[int, float], object] | None = None,
) -> tuple[ExactMatch, int]:
    """Train a decoder on the training captions of a recipe's data, and save it in `folder`.

    `decoder` is "small", whose tokens are the words of these captions, or a T5 by folder or hub name. `lr`
    None is 3e-3 for the small one and 1e-4 for a T5. It is trained on a GPU if there is one. Returns how well
    it reconstructs up to 500 captions of the validation split, and the number of training captions. Raises
    SettingError if `folder` already contains a decoder.
    """
    folder = Path(folder).expanduser()
    if (folder / "config.json").exists():
        raise SettingError("folder", str(folder), "a decoder lies there already", "Choose another folder.")
    data = recipe.data
    captions = load_pairs(data.source, data.train_split, **data.options()).all_captions
    held_out = load_pairs(data.source, data.validation_split, **data.options(train=False)).all_captions
    if decoder == "small":
        model = small_caption_decoder(captions, seed=recipe.seed)
    else:
        model = load_caption_decoder(decoder, allow_download=recipe.allow_download)
    rate = lr or (3e-3 if decoder == "small" else 1e-4)
    model.to(best_device() if recipe.training.device == "auto" else recipe.training.device)
    train_decoder(model, captions, steps=steps, batch=batch, lr=rate, seed=recipe.seed, say=say)
    model.save(folder)
    return autoencoding(model, held_out[:500]), len(captions)


def exact_match(written: Sequence[str], captions: Sequence[str]) -> ExactMatch:
    """Compare decoded captions with the true `captions`, one each."""
    both = list(zip(written, captions, strict=True))
    return ExactMatch(
        raw=np.array([text == caption for text, caption in both], dtype=bool),
        normalised=np.array([normalise(text) == normalise(caption) for text, caption in both], dtype=bool),
        token_f1=np.array([token_f1(text, caption) for text, caption in both]),
        words=np.array([len(caption.split()) for caption in captions]),
        written=list(written),
    )


@torch.no_grad()
def autoencoding(decoder: CaptionDecoder, captions: Sequence[str]) -> ExactMatch:
    """Test the decoder on its own vectors of held-out captions. Below `VALID`, its probes are not valid."""
    return exact_match(decoder.write(decoder.vectors(list(captions))), captions)


def captioning(
    written: Sequence[str],
    references: Sequence[Collection[str]],
    objects: Sequence[Collection[str]],
    attributes: Sequence[Collection[str]],
) -> Captioning:
    """Compare captions decoded from pictures with their `references`, `objects` and `attributes` (words).

    A name of several words counts if they are adjacent.
    """
    return Captioning(
        np.array(
            [max(token_f1(text, one) for one in some) for text, some in zip(written, references, strict=True)]
        ),
        np.array([_recall(text, names) for text, names in zip(written, objects, strict=True)]),
        np.array([_recall(text, names) for text, names in zip(written, attributes, strict=True)]),
        list(written),
    )


def normalise(text: str) -> str:
    """Normalise a text: NFKC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def token_f1(one: str, other: str) -> float:
    """The harmonic mean of precision and recall of words, with repetitions; 1 for two empty texts."""
    words, others = normalise(one).split(), normalise(other).split()
    if not words and not others:
        return 1.0
    shared = sum((Counter(words) & Counter(others)).values())
    return 2 * shared / (len(words) + len(others))


def _recall(text: str, names: Collection[str]) -> float:
    padded = f" {' '.join(normalise(text).replace(',', ' ').split())} "
    return float(np.mean([f" {normalise(name)} " in padded for name in names])) if names else math.nan


def summary(match: ExactMatch) -> Mapping[str, float]:
    """The means of an `ExactMatch`, under the names in reports."""
    return {
        "exact_match": float(match.normalised.mean()),
        "exact_match_raw": float(match.raw.mean()),
        "token_f1": float(match.token_f1.mean()),
    }
