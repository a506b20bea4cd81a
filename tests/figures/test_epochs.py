import json

import pytest

from workbench.figures.epochs import epochs_figure


def results(*epochs: tuple[float, float, float]) -> dict[int, dict[str, dict[str, float]]]:
    """By epoch: zero-shot accuracy, and both directions of recall."""
    return {
        epoch: {"set": {"zero_shot_top1": kept}, "test": {"text_to_image_r1": to, "image_to_text_r1": back}}
        for epoch, (kept, to, back) in enumerate(epochs)
    }


def test_what_is_kept_is_relative_to_the_start_and_recall_is_in_per_cent() -> None:
    runs = {
        "alone": results((0.5, 0.1, 0.2), (0.4, 0.3, 0.4)),
        "taught": results((0.5, 0.1, 0.2), (0.5, 0.5, 0.6)),
    }
    figure = epochs_figure(runs, ("set", "zero_shot_top1"), "test", title="Every epoch")
    assert [trace.name for trace in figure.data] == ["alone"] * 3 + ["taught"] * 3
    shown = [pytest.approx(trace.y.tolist()) for trace in figure.data]
    assert shown == [[100, 80], [10, 30], [20, 40], [100, 100], [10, 50], [20, 60]]
    assert [trace.xaxis for trace in figure.data[:3]] == ["x", "x2", "x3"] and tuple(figure.data[0].x) == (
        0,
        1,
    )
    assert [note.text for note in figure.layout.annotations] == [
        "zero-shot kept, % of the start",
        "text-to-image R@1, %",
        "image-to-text R@1, %",
    ]
    json.loads(figure.to_json())


def test_what_is_missing_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"epoch 0 of a has no \('set', 'zero_shot_top5'\); it has set: zero_shot"
    ):
        epochs_figure({"a": results((0.5, 0.1, 0.2))}, ("set", "zero_shot_top5"), "test", title="")
    late = {epoch: scores for epoch, scores in results((1, 1, 1), (1, 1, 1)).items() if epoch}
    with pytest.raises(ValueError, match="a has no zero-shot accuracy at its start"):
        epochs_figure({"a": late}, ("set", "zero_shot_top1"), "test", title="")
