"""Makes the demo student's tokenizer: byte-level BPE learned on the embedded dataset's training captions.

    python tools/make_tokenizer.py

Any text can be written with it (bytes are the last resort), and its 2,048 entries cost a student of width 128
a quarter of a million parameters, where CLIP's own 49,408 would cost six million.
"""

from collections.abc import Sequence
from pathlib import Path

from workbench.data.scenes.dataset import scenes
from workbench.models.loading import CONFIGS

VOCABULARY = 2048
SPECIAL = ("<pad>", "<start>", "<end>")  # their ids, 0 to 2, stand in the student's configuration too


def make_tokenizer(captions: Sequence[str], folder: Path) -> None:
    """Learn a tokenizer from captions and save it in the form that transformers and open_clip load."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    start, end = SPECIAL[1:]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, 1), (end, 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[0], bos_token=start, eos_token=end
    )
    fast.save_pretrained(str(folder))


if __name__ == "__main__":
    make_tokenizer(scenes("train").all_captions, CONFIGS / "demo_student")
