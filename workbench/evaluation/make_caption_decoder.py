"""Trains the caption decoder that ships for the embedded dataset: `python -m
workbench.evaluation.make_caption_decoder`.

A quarter of an hour on one CPU core. It sees the captions of the training split, and of three times as many
scenes as the demo's recipes train on, so that it knows the names in many company.
"""

import argparse

from workbench.data.load import load_pairs
from workbench.evaluation.probes.exact_match import autoencoding, summary, train_decoder
from workbench.models.caption_decoder import SHIPPED, CaptionDecoder, small_caption_decoder

SCENES = 24_000


def make(steps: int = 6000, seed: int = 0) -> CaptionDecoder:
    """Train it anew, telling how far it is."""
    captions = load_pairs("scenes", "train", scenes=SCENES).all_captions
    decoder = small_caption_decoder(captions, seed=seed)

    def say(step: int, loss: float) -> None:
        if step % 200 == 0:
            print(f"step {step} of {steps}: loss {loss:.4f}", flush=True)

    train_decoder(decoder, captions, steps=steps, seed=seed, say=say)
    return decoder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    trained = make(chosen.steps, chosen.seed)
    trained.save(SHIPPED)
    held_out = load_pairs("scenes", "test").all_captions
    print({name: round(value, 4) for name, value in summary(autoencoding(trained, held_out)).items()})
