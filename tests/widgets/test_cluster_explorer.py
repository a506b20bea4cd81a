"""What the explorer answers; that a browser draws and asks is tested in JupyterLab (test_browser.py)."""

import json

import numpy as np
import pytest

from workbench.widgets import ClusterExplorer, Grouping
from workbench.widgets.cluster_explorer import HINT, MOST_LISTED

COUNT = 60


class Pictures:
    def image(self, row: int) -> np.ndarray:
        return np.full((3, 8, 8), 20 * row, dtype=np.uint8)

    def captions(self, row: int) -> list[str]:
        return [f"picture {row}"]


def explorer(**more) -> ClusterExplorer:
    rng = np.random.default_rng(0)
    return ClusterExplorer(
        rng.normal(size=(COUNT, 2)),
        Pictures(),
        np.arange(COUNT) // 5,
        [f"caption <{n}>" for n in range(COUNT)],
        {"concept": list(np.arange(COUNT) % 4), "category": ["cat", "dog"] * (COUNT // 2)},
        **more,
    )


def controls(widget) -> dict:
    return {getattr(child, "description", ""): child for child in widget.children[0].children}


def test_the_map_is_coloured_by_the_first_choice() -> None:
    made = explorer()
    assert made.figure.layout.title.subtitle.text == "60 captions, coloured by concept"
    assert [trace.name for trace in made.figure.data] == ["0", "1", "2", "3"]


def test_hover_and_selection_show_pictures_and_captions() -> None:
    made = explorer(live=True)
    shown = str(made.describe(7))
    assert "caption &lt;7&gt;" in shown and "concept: 3, category: dog" in shown and "data:image/png" in shown
    listing = str(made.listing([3, 9, -1]))
    assert "2 captions selected" in listing and "caption &lt;9&gt;" in listing
    many = str(made.listing(list(range(COUNT))))
    assert f"60 captions selected, of which the first {MOST_LISTED} are shown" in many
    assert many.count("<img") == MOST_LISTED


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
    assert "3 captions selected" in listed.value
    view.selected = []
    assert listed.value == HINT
    before = view.figure
    controls(widget)["colour by"].value = "category"
    assert view.figure != before and "coloured by category" in view.figure
    assert "coloured by category" in changed[-1].layout.title.subtitle.text  # what the saved notebook shows
    controls(widget)["clusters"].value = 7
    assert scores.value == "purity 0.07" and "coloured by concept" in view.figure
    assert len(json.loads(view.figure)["data"]) == 7 and controls(widget)["colour by"].value == "concept"


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
