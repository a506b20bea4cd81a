"""Names lie where their groups are and do not overlap; a sample of points covers the map."""

import numpy as np

from workbench.figures.region_names import LETTER, MAP, RegionName, region_names, spread_out


def test_a_name_lies_in_the_densest_part_of_its_group() -> None:
    rng = np.random.default_rng(0)
    dense, sparse = rng.normal(size=(40, 2)) * 0.01, rng.uniform(5, 10, (20, 2))
    points = np.concatenate([dense, sparse, np.array([[-10.0, 9.0]])])
    first, second = region_names(points, ["traffic light, city"] * 60 + ["dog"])
    assert (first.text, second.text) == ("traffic light", "dog") and (second.x, second.y) == (-10, 9)
    assert abs(first.x) < 0.5 and abs(first.y) < 0.5


def test_names_do_not_overlap_and_the_largest_groups_come_first() -> None:
    points = np.array([[0.0, 0], [0, 0], [0.01, 0], [1, 1]])
    assert [name.text for name in region_names(points, ["big", "big", "small", "far"])] == ["big", "far"]
    many = region_names(np.random.default_rng(1).uniform(size=(300, 2)), [f"group {n}" for n in range(300)])
    assert len(many) == 24
    places = np.array([(name.x * MAP[0], name.y * MAP[1]) for name in many])
    apart = np.abs(places[:, None] - places[None])
    narrow = len("group 0") * LETTER * 0.95
    assert all(apart[i, j, 0] > narrow or apart[i, j, 1] > 15 for i in range(24) for j in range(i))
    assert [name.text for name in region_names(points[:1], ["alone"])] == ["alone"]
    own = RegionName(1.0, 1.0, "a caption")
    assert [name.text for name in region_names(points, ["big", "big", "small", "far"], [own])] == ["big"]


def test_a_sample_has_one_point_for_each_cell() -> None:
    points = np.random.default_rng(0).uniform(size=(500, 2))
    chosen = spread_out(points, np.zeros(2), np.array([0.5, 1.0]), (3, 2))
    assert len(chosen) == 6 and (points[chosen, 0] < 0.5).all()
    assert len({(int(x * 6), int(y * 2)) for x, y in points[chosen]}) == 6
    assert len(spread_out(points, np.full(2, 2.0), np.full(2, 3.0), (3, 2))) == 0
