"""What the explorer answers; that a browser draws and asks is tested in JupyterLab (test_browser.py)."""

import base64
import json

import numpy as np
import pytest

from workbench.widgets import ClusterExplorer, Grouping
from workbench.widgets.cluster_explorer import HINT, MOST_LISTED

COUNT = 60


class Pictures:
    def image(self, row: int) -> np.ndarray:
        return np.full((3, 8, 8), 20 * row % 256, dtype=np.uint8)

    def captions(self, row: int) -> list[str]:
        return [f"picture {row}"]


FIVE_EACH = np.arange(COUNT) // 5  # captions of a picture


def explorer(rows=FIVE_EACH, **more) -> ClusterExplorer:
    rng = np.random.default_rng(0)
    return ClusterExplorer(
        rng.normal(size=(COUNT, 2)),
        Pictures(),
        rows,
        [f"caption <{n}>" for n in range(COUNT)],
        {"concept": list(np.arange(COUNT) % 4), "category": ["cat", "dog"] * (COUNT // 2)},
        **more,
    )


def controls(widget) -> dict:
    return {child.description or child.placeholder: child for child in widget.children[0].children}


def test_the_map_is_coloured_by_the_first_choice() -> None:
    made = explorer()
    assert made.figure.layout.title.subtitle.text == "60 captions, coloured by concept"
    assert [trace.name for trace in made.figure.data] == ["0", "1", "2", "3"]


def test_hover_and_selection_show_pictures_and_captions() -> None:
    made = explorer(live=True)
    shown = str(made.describe(7))
    assert (
        "caption &lt;7&gt;" in shown and "concept: 3 · category: dog" in shown and "data:image/png" in shown
    )
    listing = str(made.listing([5, 3, 9, -1]))
    assert "3 captions of 2 pictures selected" in listing and "caption &lt;9&gt;" in listing
    assert listing.count("<img") == 2 and "1 · 3" not in listing.split("<img")[2]  # each picture once
    many = explorer(rows=np.arange(COUNT))
    listing = str(many.listing(list(range(COUNT))))
    assert f"60 captions of 60 pictures selected; the first {MOST_LISTED} pictures are shown" in listing
    assert listing.count("<img") == MOST_LISTED


def test_the_widget_answers_what_a_browser_sends() -> None:
    made = explorer(
        live=True,
        clusters=(2, 16),
        regroup=lambda count: Grouping([n % count for n in range(COUNT)], {"purity": count / 100}),
    )
    changed: list = []
    widget = made._widget(changed.append)
    _, scores, row, listed = widget.children
    view, details = row.children
    view.hovered = 12
    assert "caption &lt;12&gt;" in details.value
    view.selected = [1, 2, 3]
    assert "3 captions of 1 pictures selected" in listed.value
    view.selected = []
    assert listed.value == HINT
    before = view.figure
    controls(widget)["colour by"].value = "category"
    assert view.figure != before and "coloured by category" in view.figure
    assert "coloured by category" in changed[-1].layout.title.subtitle.text  # what the saved notebook shows
    controls(widget)["clusters"].value = 7
    assert scores.value == "purity 0.07" and "coloured by concept" in view.figure
    assert len(json.loads(view.figure)["data"]) == 7 and controls(widget)["colour by"].value == "concept"


def shown_as_lit(view) -> list[int]:
    return sorted(
        trace["customdata"][place]
        for trace in json.loads(view.figure, object_hook=numbers)["data"]
        for place in trace.get("selectedpoints", ())
    )


def numbers(value: dict) -> object:
    """Plotly writes arrays as base64."""
    if set(value) == {"dtype", "bdata"}:
        return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist()
    return value


def test_regrouping_keeps_colours_and_selection_and_renews_the_card() -> None:
    made = explorer(
        live=True,
        clusters=(2, 16),
        regroup=lambda count: Grouping([f"group {min(n // 10, count - 1)}" for n in range(COUNT)], {}),
    )
    widget = made._widget(lambda figure: None)
    view, details = widget.children[2].children
    assert details.value == ""
    view.hovered = 0  # the first dot is one like all others
    view.selected = [0, 21, 50]
    controls(widget)["clusters"].value = 5
    assert "concept: group 0" in details.value and shown_as_lit(view) == [0, 21, 50]
    assert "group 4" in widget.children[3].value and widget.children[3].value.count("<img") == 3
    before = made._concepts
    controls(widget)["clusters"].value = 6
    assert [made._concepts[f"group {n}"] for n in range(5)] == [before[f"group {n}"] for n in range(5)]
    controls(widget)["colour by"].value = "category"
    assert shown_as_lit(view) == [0, 21, 50]


def test_a_search_lights_up_matches_until_a_lasso_takes_over() -> None:
    widget = (made := explorer(live=True))._widget(lambda figure: None)
    view, listed = widget.children[2].children[0], widget.children[3]
    box = controls(widget)["words to light up, then Enter"]
    box.value = "<5 CAPTION"
    assert shown_as_lit(view) == [5, *range(50, 60)] and "11 captions of 3 pictures with" in listed.value
    view.selected = [1]
    assert box.value == "" and made.selected == [1] and "with" not in listed.value
    box.value = "a cat"
    assert listed.value == "No caption contains “a cat”." and made.selected == []
    box.value = ""
    assert listed.value == HINT


def test_pictures_on_the_map_are_a_sample_of_what_is_in_view() -> None:
    made = explorer(live=True)
    widget = made._widget(lambda figure: None)
    view = widget.children[2].children[0]
    controls(widget)["pictures"].value = True
    images = json.loads(view.figure)["layout"]["images"]
    assert 1 < len(images) <= 12 and all(image["source"].startswith("data:image/png") for image in images)
    x, y = made.positions[7]
    view.zoom = [x - 1e-3, x + 1e-3, y - 1e-3, y + 1e-3]
    (image,) = json.loads(view.images)
    assert (image["x"], image["y"]) == (x, y)


def test_pairs_are_joined_on_demand() -> None:
    made = explorer(live=True, pictures=np.ones((12, 2)), picture_rows=np.arange(12))
    widget = made._widget(lambda figure: None)
    view = widget.children[2].children[0]
    assert not any(trace.get("mode") == "lines" for trace in json.loads(view.figure)["data"])
    controls(widget)["connect captions with their pictures"].value = True
    assert any(trace.get("mode") == "lines" for trace in json.loads(view.figure)["data"])
    assert "picture 3" in str(made.describe(-4))


def test_headless_it_is_a_plain_figure(shown) -> None:
    explorer()._ipython_display_()  # WORKBENCH_HEADLESS=1 in tests
    assert len(shown) == 1 and shown[0]["text/plain"] == "<Captions>"


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ValueError, match="picture_rows with pictures"):
        explorer(pictures=np.ones((2, 2)))
    with pytest.raises(ValueError, match="no `regroup`"):
        explorer().group(3)
