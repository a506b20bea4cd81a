"""The probes that train a little of their own: what a model's embeddings can be read back into."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs
from workbench.evaluation.encode import Embedded, encode_images, encode_texts
from workbench.evaluation.probes.exact_match import (
    VALID,
    Probe,
    autoencoding,
    captioning,
    exact_match,
    summary,
)
from workbench.models.caption_decoder import CaptionDecoder, load_caption_decoder
from workbench.models.dual_encoder import DualEncoder
from workbench.recipe import Recipe

PROBED = frozenset({"exact_match", "captioning"})  # the suites that train one
TRAINED_ON = 10_000  # captions, or pictures, at most
JUDGED_ON = 1_000
STEPS = 600


class Probes(NamedTuple):
    """A decoder, and the linear layers that feed it a model's caption and image embeddings."""

    decoder: CaptionDecoder
    text: Probe | None
    image: Probe | None


def fit_probes(model: DualEncoder, recipe: Recipe) -> Probes | None:
    """The probes that the suites "exact_match" and "captioning" ask for, trained on the training split;
    None where it asks for neither. Picture and caption probes have the same captions, steps and batch."""
    suites = recipe.evaluation.suites
    if not PROBED & set(suites):
        return None
    decoder = load_caption_decoder(recipe.evaluation.decoder, allow_download=recipe.allow_download)
    decoder = decoder.to(model.mean.device)
    pairs = load_pairs(recipe.data.source, recipe.data.train_split, **recipe.data.options())
    text = image = None
    if "exact_match" in suites:
        captions = pairs.all_captions
        chosen = [captions[position] for position in _spread(len(captions), TRAINED_ON)]
        text = _fitted(decoder, encode_texts(model, chosen), chosen)
    if "captioning" in suites:
        some = pairs.select(_spread(len(pairs), TRAINED_ON))
        embeddings, rows, _ = encode_images(model, some, recipe.evaluation.batch)
        rng = np.random.default_rng(0)
        image = _fitted(decoder, embeddings, [str(rng.choice(some.captions(int(row)))) for row in rows])
    return Probes(decoder, text, image)


def probe_scores(
    probes: Probes, pairs: Pairs, embedded: Embedded
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Numbers of one split, and the result of every caption or picture that they are means of.

    Where the decoder cannot write the split's captions back from its own vectors (`decoder_exact_match` below
    0.9, as with names it has never seen) the probes are not valid and give nothing else.
    """
    every = pairs.all_captions
    kept = np.flatnonzero(np.isin(pairs.image_of_caption, embedded.rows))
    chosen = _spread(len(kept), JUDGED_ON)
    captions = [every[kept[position]] for position in chosen]
    own = float(autoencoding(probes.decoder, captions).normalised.mean())
    scores: dict[str, float] = {"decoder_exact_match": own}
    queries: dict[str, np.ndarray] = {}
    if own < VALID:
        return scores, queries
    if probes.text is not None:
        match = exact_match(probes.text.write(embedded.text[chosen]), captions)
        scores |= summary(match)
        results = {"exact_match": match.normalised, "exact_match_raw": match.raw, "token_f1": match.token_f1}
        for name, values in results.items():
            queries |= {f"{name}_result": values, f"{name}_image": embedded.image_of_text[chosen]}
    if probes.image is not None:
        pictures = _spread(len(embedded.image), JUDGED_ON)
        scenes = [pairs.details(int(row)) for row in embedded.rows[pictures]]
        captioned = captioning(
            probes.image.write(embedded.image[pictures]),
            [pairs.captions(int(row)) for row in embedded.rows[pictures]],
            [scene.get("objects", []) for scene in scenes],
            [
                {scene["background"], *scene["sizes"]} if {"background", "sizes"} <= scene.keys() else set()
                for scene in scenes
            ],
        )
        for measure in ("token_f1", "object_recall", "attribute_recall"):
            name, values = f"captioning_{measure}", getattr(captioned, measure)
            known = ~np.isnan(values)
            if known.any():
                scores[name] = float(values[known].mean())
                queries |= {f"{name}_result": values[known], f"{name}_image": pictures[known]}
    return scores, queries


def _fitted(decoder: CaptionDecoder, embeddings: Tensor, captions: list[str]) -> Probe:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Probe(decoder, embeddings.shape[1]).fit(embeddings, captions, steps=STEPS)


def _spread(count: int, at_most: int) -> np.ndarray:
    """Positions spread evenly over `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, at_most)).round().astype(np.int64))
