import numpy as np

from workbench.figures.label_layout import free_places

NOTHING = np.empty((0, 4))


def rectangle(x: float, y: float, width: float = 10, height: float = 4) -> list[float]:
    return [x, y, x + width, y + height]


def test_the_first_place_is_taken_where_it_is_free() -> None:
    candidates = np.array([[rectangle(0, 0), rectangle(20, 0)], [rectangle(40, 0), rectangle(60, 0)]])
    result = free_places(candidates, NOTHING, (100.0, 100.0))
    np.testing.assert_array_equal(result, candidates[:, 0])


def test_labels_keep_off_each_other_and_off_things() -> None:
    candidates = np.array([[rectangle(0, 0), rectangle(20, 0), rectangle(40, 0)]] * 3)
    result = free_places(candidates, NOTHING, (100.0, 100.0))
    np.testing.assert_array_equal(result[:, 0], [0, 20, 40])
    result = free_places(candidates[:1], np.array([rectangle(5, 1, 1, 1)]), (100.0, 100.0))
    assert result[0, 0] == 20
    # A thing is rather covered than another label.
    result = free_places(candidates[:2, :2], np.array([rectangle(20, 0)]), (100.0, 100.0))
    np.testing.assert_array_equal(result[:, 0], [0, 20])


def test_nothing_leaves_the_bounds() -> None:
    candidates = np.array([[rectangle(-3, -2)], [rectangle(95, 99)]])
    result = free_places(candidates, NOTHING, (100.0, 100.0))
    np.testing.assert_array_equal(result, [rectangle(0, 0), rectangle(90, 96)])


def test_no_labels() -> None:
    assert free_places(np.empty((0, 3, 4)), NOTHING, (1.0, 1.0)).shape == (0, 4)
