"""The trained probes: linear layers that feed a model's embeddings to a caption decoder."""

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

PROBED = frozenset({"exact_match", "captioning"})  # the suites that train a probe
TRAINED_ON = 10_000  # the most captions or pictures for training
JUDGED_ON = 1_000  # the most captions or pictures for evaluation
STEPS = 600


class Probes(NamedTuple):
    """A decoder and the linear layers that feed it the caption and image embeddings of a model."""

    decoder: CaptionDecoder
    text: Probe | None
    image: Probe | None


def fit_probes(model: DualEncoder, recipe: Recipe) -> Probes | None:
    """Train the probes of the suites "exact_match" and "captioning" on the training split.

    Returns None if the recipe has neither suite. Both probes have the same number of steps and batch size.
    """
    suites = recipe.evaluation.suites
    if not PROBED & set(suites):
        return None
    decoder = load_caption_decoder(recipe.evaluation.decoder, allow_download=recipe.allow_download)
    decoder = decoder.to(model.mean.device)
    pairs = load_pairs(recipe.data.source, recipe.data.train_split, **recipe.data.options())
    text = image = None
    if "exact_match" in suites:
        captions = pairs.all_captions
        sample = [captions[position] for position in _spread(len(captions), TRAINED_ON)]
        text = _fitted(decoder, encode_texts(model, sample), sample)
    if "captioning" in suites:
        subset = pairs.select(_spread(len(pairs), TRAINED_ON))
        embeddings, rows, _ = encode_images(model, subset, recipe.evaluation.batch)
        rng = np.random.default_rng(0)
        image = _fitted(decoder, embeddings, [str(rng.choice(subset.captions(int(row)))) for row in rows])
    return Probes(decoder, text, image)


def probe_scores(
    probes: Probes, pairs: Pairs, embedded: Embedded
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The scores of the probes on a split, and the results of single captions and pictures.

    If the decoder cannot reconstruct the captions from its own embeddings (`decoder_exact_match` below 0.9,
    for instance with unknown names), the probes are not valid and only this score is returned.
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
    """Up to `at_most` positions, evenly spaced over `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, at_most)).round().astype(np.int64))
