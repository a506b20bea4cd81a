import numpy as np

from workbench.reports.rank_changes import Change, changed_most


def test_the_largest_factors_come_first_and_each_picture_once() -> None:
    before = np.array([900, 10, 8, 1, 40, 30])
    after = np.array([800, 1, 1, 5, 40, 10])
    image = np.array([0, 1, 1, 2, 3, 4])
    assert changed_most(before, after, image, 9) == [
        Change(1, 1, 10, 1),
        Change(5, 4, 30, 10),
        Change(0, 0, 900, 800),
    ]
    assert changed_most(before, after, image, 1) == [Change(1, 1, 10, 1)]
    assert changed_most(after, before, image, 9) == [Change(3, 2, 5, 1)]
    assert changed_most(before, before, image, 9) == []
