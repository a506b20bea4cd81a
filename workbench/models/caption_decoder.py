"""A decoder that generates a caption from one vector: a T5 by name or folder, or a small one."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from workbench.errors import SettingError, reason
from workbench.files import read_json
from workbench.models.loading import hub_access, quiet_loading
from workbench.models.tokens import padded

SHIPPED = Path(__file__).parents[1] / "assets" / "caption_decoder"
SETTINGS = "decoder.json"


class CaptionDecoder(nn.Module):
    """T5 whose decoder sees a caption only through one vector.

    `vectors` returns this vector, the mean of the encoder's last states. `loss` and `write` take any vectors
    of that width, `dim`. `deviation` is the standard deviation of trained vectors per dimension.
    """

    def __init__(self, t5: Any, tokenizer: Any, deviation: float = 1.0) -> None:
        super().__init__()
        self.t5 = t5
        self.tokenizer = tokenizer
        self.deviation = deviation
        self.dim = int(t5.config.d_model)

    def vectors(self, captions: Sequence[str]) -> Float[Tensor, "n dim"]:
        """The vector of each caption."""
        ids, mask = self._tokens(captions)
        states = self.t5.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return torch.where(mask[..., None], states, 0).sum(1) / mask.sum(1, keepdim=True)

    def loss(self, vectors: Float[Tensor, "n dim"], captions: Sequence[str]) -> Float[Tensor, ""]:
        """The cross-entropy of the true captions' tokens, mean over tokens."""
        ids, mask = self._tokens(captions)
        return self.t5(encoder_outputs=(vectors[:, None],), labels=ids.masked_fill(~mask, -100)).loss

    @torch.no_grad()
    def write(self, vectors: Float[Tensor, "n dim"], batch: int = 500) -> list[str]:
        """Decode each vector greedily into a caption of at most 64 tokens."""
        from transformers.modeling_outputs import BaseModelOutput

        self.t5.eval()
        captions: list[str] = []
        for part in vectors.split(batch):
            states = BaseModelOutput(last_hidden_state=part[:, None])
            ids = self.t5.generate(encoder_outputs=states, max_new_tokens=64, do_sample=False, num_beams=1)
            captions += self.tokenizer.batch_decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        return captions

    def save(self, folder: str | Path) -> None:
        """Write weights (float16), configuration and tokenizer as transformers does, and the deviation."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: value.to(torch.float16) for name, value in self.t5.state_dict().items()}
        self.t5.save_pretrained(folder, state_dict=state)
        self.tokenizer.save_pretrained(folder)
        (folder / SETTINGS).write_text(json.dumps({"deviation": self.deviation}) + "\n", encoding="utf-8")

    def _tokens(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        rows = self.tokenizer(list(captions), truncation=True, max_length=64)["input_ids"]
        return padded(rows, self.t5.config.pad_token_id, self.t5.device)


def load_caption_decoder(name: str = "demo", *, allow_download: bool = False) -> CaptionDecoder:
    """Load the decoder for the embedded dataset ("demo"), a folder that `save` wrote, or T5 by hub name.

    A published T5 has never decoded captions from one vector: train it first (`evaluation.exact_match.
    train_decoder`). Raises SettingError if it is missing. Downloads only with `allow_download`.
    """
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    folder = SHIPPED if name == "demo" else Path(name).expanduser()
    source = str(folder) if (folder / "config.json").is_file() else name
    try:
        with hub_access(allow_download), quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            t5 = T5ForConditionalGeneration.from_pretrained(
                source, use_safetensors=True, dtype=torch.float32, trust_remote_code=False
            )
        settings = folder / SETTINGS
        deviation = float(read_json(settings)["deviation"]) if settings.is_file() else 1.0
    except Exception as error:
        remedy = "demo, a folder, or a T5 in the local hub cache, such as t5-large"
        raise SettingError("decoder", name, f"it cannot be loaded ({reason(error)})", remedy) from error
    return CaptionDecoder(t5.eval(), tokenizer, deviation)


def small_caption_decoder(
    captions: Sequence[str], *, dim: int = 128, layers: int = 2, seed: int = 0
) -> CaptionDecoder:
    """An untrained decoder whose tokens are the words of `captions`: two layers, a million weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    counts = Counter(word for caption in captions for word in caption.split())
    special = ["<pad>", "</s>", "<unk>"]
    words = special + [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    config = T5Config(
        vocab_size=len(words),
        d_model=dim,
        d_kv=dim // 4,
        d_ff=4 * dim,
        num_layers=layers,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,  # type: ignore[call-arg]
    )
    torch.manual_seed(seed)
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    return CaptionDecoder(T5ForConditionalGeneration(config), fast)
