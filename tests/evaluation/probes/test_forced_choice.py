import numpy as np
import pytest

import workbench
from workbench.evaluation.probes.forced_choice import scene_questions


@pytest.fixture(scope="module")
def pairs():
    return workbench.load_pairs("scenes", "test").select(np.arange(200))


def test_the_true_caption_is_true_and_the_false_one_false(pairs) -> None:
    result = scene_questions(pairs)
    assert list(result) == ["objects", "sizes", "backgrounds", "relations"]
    for kind in ("objects", "sizes", "backgrounds"):
        assert len(result[kind].rows) > 150, kind
    scenes = pairs.table.to_pylist()
    for row, true, false in zip(*result["objects"], strict=True):
        assert any(name in true for name in scenes[row]["objects"])
        assert not any(false.endswith(f" {name}") for name in scenes[row]["objects"])
    for row, true, false in zip(*result["sizes"], strict=True):
        said = "small" if " small " in true else "large"
        named = [
            s for n, s in zip(scenes[row]["objects"], scenes[row]["sizes"], strict=True) if true.endswith(n)
        ]
        assert said in named
        assert true.replace(" small ", " large ").replace(" a large", " a large") == false or said == "large"
    for row, true, false in zip(*result["backgrounds"], strict=True):
        assert true.endswith(f"{scenes[row]['background']} background")
        assert scenes[row]["background"] not in false.split(" on ")[-1]
    for row, true, false in zip(*result["relations"], strict=True):
        assert true in scenes[row]["captions"] and false == scenes[row]["swapped_caption"]


def test_the_seed_decides(pairs) -> None:
    one, same, other = (scene_questions(pairs, seed)["objects"].false for seed in (0, 0, 1))
    assert one == same != other


def test_other_data_has_no_questions(pairs) -> None:
    import pyarrow as pa

    plain = workbench.data.pairs.Pairs(
        pa.table({"id": ["a"], "captions": [["a dog"]]}), lambda row: None, name="plain", split="all"
    )
    assert scene_questions(plain) == {}
