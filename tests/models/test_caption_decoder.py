import pytest
import torch

from workbench.errors import SettingError
from workbench.models.caption_decoder import CaptionDecoder, load_caption_decoder, small_caption_decoder

CAPTIONS = ["a red apple", "two pears on a table", "a red apple, left of a pear", "apple"]


@pytest.fixture
def decoder() -> CaptionDecoder:
    return small_caption_decoder(CAPTIONS, dim=16, layers=1)


def test_it_is_t5_through_one_vector(decoder: CaptionDecoder) -> None:
    """The same numbers as T5's own forward, where the encoder's states are replaced by their mean."""
    vectors = decoder.vectors(CAPTIONS)
    assert vectors.shape == (4, 16)
    for row, caption in enumerate(CAPTIONS):
        ids = torch.tensor([decoder.tokenizer(caption)["input_ids"]])
        states = decoder.t5.encoder(input_ids=ids).last_hidden_state.mean(1)
        torch.testing.assert_close(vectors[row], states[0], rtol=1e-4, atol=1e-5)
    alone = [float(decoder.loss(vectors[n : n + 1].detach(), CAPTIONS[n : n + 1]).detach()) for n in range(4)]
    tokens = [len(decoder.tokenizer(caption)["input_ids"]) for caption in CAPTIONS]
    mean = sum(loss * count for loss, count in zip(alone, tokens, strict=True)) / sum(tokens)
    assert decoder.loss(vectors, CAPTIONS).item() == pytest.approx(mean, rel=1e-4)


def test_writing_is_greedy_and_one_vector_does_not_change_another(decoder: CaptionDecoder) -> None:
    vectors = 3 * torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    written = decoder.write(vectors, batch=2)
    expected = []
    for vector in vectors:
        ids = [decoder.t5.config.decoder_start_token_id]
        while len(ids) <= 64 and ids[-1] != decoder.t5.config.eos_token_id:
            logits = decoder.t5(
                encoder_outputs=(vector[None, None],), decoder_input_ids=torch.tensor([ids])
            ).logits
            ids.append(int(logits[0, -1].argmax()))
        expected.append(decoder.tokenizer.decode(ids, skip_special_tokens=True))
    assert written == expected


def test_it_learns_to_write_captions_back(decoder: CaptionDecoder, tmp_path) -> None:
    from workbench.evaluation.probes.exact_match import autoencoding, train_decoder

    assert autoencoding(decoder, CAPTIONS).raw.mean() < 1
    train_decoder(decoder, CAPTIONS * 4, steps=150, batch=16, lr=1e-2)
    assert autoencoding(decoder, CAPTIONS).raw.all()
    decoder.save(tmp_path / "decoder")
    again = load_caption_decoder(str(tmp_path / "decoder"))
    assert again.deviation == pytest.approx(decoder.deviation)
    assert again.write(again.vectors(CAPTIONS)) == CAPTIONS


def test_what_is_not_there_is_named() -> None:
    for name in ("t5-large", "/nowhere/decoder"):
        with pytest.raises(SettingError, match=f"decoder = '{name}': it cannot be loaded"):
            load_caption_decoder(name)


def test_the_shipped_decoder_writes_the_embedded_datasets_captions() -> None:
    import numpy as np

    from workbench.data.load import load_pairs
    from workbench.evaluation.probes.exact_match import VALID, autoencoding

    decoder = load_caption_decoder()
    captions = load_pairs("scenes", "test").select(np.arange(100)).all_captions
    assert autoencoding(decoder, captions).raw.mean() >= VALID
