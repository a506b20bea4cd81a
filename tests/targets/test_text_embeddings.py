import numpy as np
import pytest

from workbench.models.text_teacher import load_text_teacher
from workbench.targets import caption_embeddings, text_embeddings


@pytest.fixture(scope="module")
def teacher():
    return load_text_teacher("minilm", precision="float32")


def test_computed_once_and_looked_up_ever_after(teacher, monkeypatch) -> None:
    words = [f"a picture of {count} apples" for count in range(30)]
    monkeypatch.setattr(text_embeddings, "PORTION", 8)
    lines: list[str] = []
    result = caption_embeddings(teacher, words, name="apples", say=lines.append)
    np.testing.assert_allclose(result, teacher.embed(words), rtol=1e-4, atol=1e-6)
    assert any("language model's text targets: 30 of 30" in line for line in lines)

    def never(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(teacher, "embed", never)
    np.testing.assert_array_equal(caption_embeddings(teacher, words, name="apples", say=None), result)
    with pytest.raises(AssertionError, match="computed again"):
        caption_embeddings(teacher, [*words[:-1], "a pear"], name="apples", say=None)


def test_a_killed_run_goes_on_where_it_stopped(teacher, monkeypatch) -> None:
    words = [f"{count} pears" for count in range(20)]
    monkeypatch.setattr(text_embeddings, "PORTION", 5)
    embed, calls = teacher.embed, []

    def killed_in_the_third_portion(some, **options):
        calls.append(len(some))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed(some, **options)

    monkeypatch.setattr(teacher, "embed", killed_in_the_third_portion)
    with pytest.raises(KeyboardInterrupt):
        caption_embeddings(teacher, words, say=None)
    result = caption_embeddings(teacher, words, say=None)
    assert calls == [5, 5, 5, 5, 5]  # two portions, the one that was killed, and the two that were left
    np.testing.assert_allclose(result, embed(words), rtol=1e-4, atol=1e-6)
