"""Makes the shipped caption decoder: it writes captions of the embedded dataset back from single vectors.

    python tools/make_caption_decoder.py [--steps 6000] [--seed 0]

A quarter of an hour on one CPU core. It learns from the captions of three times as many training scenes as
the demo recipes use, so that it meets every name in many combinations.
"""

import argparse

from workbench.data.load import load_pairs
from workbench.evaluation.probes.exact_match import autoencoding, summary, train_decoder
from workbench.models.caption_decoder import SHIPPED, CaptionDecoder, small_caption_decoder

SCENES = 24_000


def make(steps: int = 6000, seed: int = 0) -> CaptionDecoder:
    """Train a new decoder and print its loss every 200 steps."""
    captions = load_pairs("scenes", "train", scenes=SCENES).all_captions
    decoder = small_caption_decoder(captions, seed=seed)

    def say(step: int, loss: float) -> None:
        if step % 200 == 0:
            print(f"step {step} of {steps}: loss {loss:.4f}", flush=True)

    train_decoder(decoder, captions, steps=steps, seed=seed, say=say)
    return decoder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    trained = make(chosen.steps, chosen.seed)
    trained.save(SHIPPED)
    held_out = load_pairs("scenes", "test").all_captions
    print({name: round(value, 4) for name, value in summary(autoencoding(trained, held_out)).items()})
