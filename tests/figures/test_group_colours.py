"""Groups have colours of their own, and keep them when the points are grouped anew."""

from workbench.figures.group_colours import MANY, group_colours
from workbench.figures.style import PALETTE


def test_every_group_has_its_own_colour_the_largest_first() -> None:
    colours = group_colours(["b", "a", "a", 3])
    assert list(colours) == ["a", "b", "3"] and list(colours.values()) == list(PALETTE[:3])
    assert len(set(group_colours(range(200)).values())) == 200
    assert len(group_colours(range(1000))) == 1000 > len(MANY)


def test_a_group_keeps_the_colour_of_the_points_that_it_has_most_of() -> None:
    before = ["x"] * 4 + ["y"] * 4 + ["z"] * 2
    colours = group_colours(before)
    after = ["new x"] * 3 + ["new y"] * 4 + ["part of x"] + ["new z"] * 2
    again = group_colours(after, (before, colours))
    assert [again[f"new {name}"] for name in "xyz"] == [colours[name] for name in "xyz"]
    assert again["part of x"] not in colours.values()
    assert group_colours(before, (before, colours)) == colours
