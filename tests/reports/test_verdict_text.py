import pandas as pd

from workbench.reports.verdict_text import in_words


def table(seeds: int = 3) -> pd.DataFrame:
    """Two groups, three metrics: one higher, one within noise, one without an interval."""
    nan = float("nan")
    rows = {
        ("test", "text_to_image_r1"): (0.1, 0.2, 0.1, 0.05, 0.15, "higher"),
        ("test", "swap_accuracy"): (0.5, 0.49, -0.01, -0.03, 0.01, "within noise"),
        ("test", "text_to_image_median_rank"): (9, 4, -5, nan, nan, ""),
        ("test_style", "text_to_image_r1"): (0.3, 0.1, -0.2, -0.25, -0.15, "lower"),
    }
    result = {
        key: {("alone", "value"): first, ("alone", "spread"): 0.0, ("alone", "seeds"): seeds}
        | {
            ("taught", name): value
            for name, value in zip(("value", "difference", "low", "high", "verdict"), rest, strict=True)
        }
        | {("taught", "seeds"): 3}
        for key, (first, *rest) in rows.items()
    }
    made = pd.DataFrame(list(result.values()), index=pd.MultiIndex.from_tuples(result))
    made.columns = pd.MultiIndex.from_tuples(made.columns)
    return made


def test_every_group_and_split_is_told_by_its_intervals() -> None:
    metrics = ["text_to_image_r1", "swap_accuracy", "text_to_image_median_rank", "missing"]
    lines = str(in_words(table(), metrics)).split("\n")
    assert lines == [
        "- test, **taught** against alone: higher: text-to-image R@1 +10.0 [+5.0, +15.0]; within noise: "
        "swapped captions, accuracy -1.0 [-3.0, +1.0]; without an interval: text-to-image median rank -5.",
        "- test_style, **taught** against alone: lower: text-to-image R@1 -20.0 [-25.0, -15.0].",
    ]


def test_few_seeds_are_named_and_nothing_is_nothing() -> None:
    assert "*1 seed: other seeds may differ.*" in in_words(table(seeds=1), ["swap_accuracy"])
    assert "*2 seeds" in in_words(table(seeds=2), ["swap_accuracy"])
    assert "nothing to compare" in in_words(table(), ["missing"])
