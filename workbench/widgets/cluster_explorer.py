"""An interactive map of captions: hover a dot to see its picture, draw a lasso to list several."""

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from workbench.figures.cluster_map import cluster_map
from workbench.figures.display import plain
from workbench.figures.gallery import Gallery, Picture, gallery
from workbench.widgets.notebook import NotebookWidget, browser_side, is_live, on_change
from workbench.widgets.picture_search import HasPictures

MOST_LISTED = 24
MOST_LINES = 400  # more could not be distinguished
HINT = "Draw a lasso around dots to list them."


Labels = Sequence[Any] | np.ndarray


class Grouping(NamedTuple):
    """A clustering: the cluster of each caption, and scores of its quality."""

    labels: Labels
    scores: Mapping[str, float]


class ClusterExplorer(NotebookWidget):
    """Shows a map of captions, coloured by one of `colours`, with the hovered picture and the selection.

        ClusterExplorer(positions, pairs, rows, captions, {"concept": labels, "category": categories},
                        regroup=lambda clusters: Grouping(...), clusters=(8, 256))

    `positions` [n, 2] are those of the captions, `rows` [n] are the rows of their pictures in `pairs`.
    `regroup` adds a slider for the number of clusters. Its result becomes the colour "concept", and its
    scores are shown. `pictures` [m, 2] are positions of the pictures in `picture_rows`, and add a checkbox
    that connects captions with their pictures. Under `WORKBENCH_HEADLESS=1` only the map is shown. Raises
    ValueError without `colours`, and for `pictures` without `picture_rows`.
    """

    def __init__(
        self,
        positions: np.ndarray,
        pairs: HasPictures,
        rows: np.ndarray,
        captions: Sequence[str],
        colours: Mapping[str, Labels],
        *,
        title: str = "Captions",
        regroup: Callable[[int], Grouping] | None = None,
        clusters: tuple[int, int] = (8, 256),
        pictures: np.ndarray | None = None,
        picture_rows: np.ndarray | None = None,
        live: bool | None = None,
    ) -> None:
        if not colours or (pictures is None) != (picture_rows is None):
            raise ValueError("ClusterExplorer: give at least one of colours, and picture_rows with pictures")
        self.positions, self.pairs, self.rows, self.captions = positions, pairs, rows, captions
        self.colours = dict(colours)
        self.title = title
        self.regroup, self.clusters = regroup, clusters
        self.pictures, self.picture_rows = pictures, picture_rows
        self.colour = next(iter(self.colours))
        self.joins = False
        self._live = is_live(live)

    @property
    def figure(self) -> Any:
        """The current map as a plotly figure."""
        return cluster_map(
            self.positions,
            self.colours[self.colour],
            self.captions,
            title=self.title,
            subtitle=f"{len(self.positions):,} captions, coloured by {self.colour}",
            pictures=self.pictures,
            joined=self._pairs() if self.joins else (),
        )

    def describe(self, number: int) -> Gallery:
        """The picture and caption of dot `number`, or of picture `-1 - number` if it is negative."""
        if number < 0 and self.picture_rows is not None:
            row = int(self.picture_rows[-1 - number])
            return gallery([Picture(self.pairs.image(row), self.pairs.captions(row))])
        note = ", ".join(f"{name}: {values[number]}" for name, values in self.colours.items())
        row = int(self.rows[number])
        return gallery([Picture(self.pairs.image(row), [self.captions[number]], note=note)])

    def listing(self, numbers: Sequence[int]) -> Gallery:
        """The pictures and captions of the selected dots, at most 24 of them."""
        labels = self.colours[self.colour]
        dots = [number for number in numbers if number >= 0]
        pictures = [
            Picture(self.pairs.image(int(self.rows[dot])), [self.captions[dot]], note=str(labels[dot]))
            for dot in dots[:MOST_LISTED]
        ]
        limit = f", of which the first {MOST_LISTED} are shown" if len(dots) > MOST_LISTED else ""
        return gallery(pictures, f"{len(dots)} captions selected{limit}", size=110)

    def group(self, clusters: int) -> str:
        """Cluster the captions again, colour by the result and return its scores as a line of text."""
        if self.regroup is None:
            raise ValueError("ClusterExplorer: this explorer has no `regroup`")
        grouping = self.regroup(clusters)
        self.colours["concept"], self.colour = list(grouping.labels), "concept"
        return " · ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in grouping.scores.items())

    def _pairs(self) -> list[tuple[int, int]]:
        picture_rows = () if self.picture_rows is None else self.picture_rows
        numbers = {int(row): number for number, row in enumerate(picture_rows)}
        pairs = [(dot, numbers[int(row)]) for dot, row in enumerate(self.rows) if int(row) in numbers]
        return pairs[:: max(1, len(pairs) // MOST_LINES)]

    def _outputs(self) -> list[Any]:
        return [self.figure]

    def _widget(self, changed: Callable[..., None]) -> Any:
        import ipywidgets
        import traitlets

        numbers = traitlets.List(traitlets.Int())
        view = browser_side("cluster_explorer", "figure", hovered=traitlets.Int(0), selected=numbers)
        details, listed, scores = ipywidgets.HTML(), ipywidgets.HTML(HINT), ipywidgets.HTML()
        choice = ipywidgets.Dropdown(options=list(self.colours), value=self.colour, description="colour by")

        def redraw() -> None:
            figure = self.figure
            view.figure = json.dumps(plain(figure))
            changed(figure)

        def recolour(name: str) -> None:
            self.colour = name
            redraw()

        def regroup(clusters: int) -> None:
            scores.value = escape(self.group(clusters))
            choice.options = list(self.colours)
            if choice.value == "concept":
                redraw()
            choice.value = "concept"

        def join(joins: bool) -> None:
            self.joins = joins
            redraw()

        def describe(number: int) -> None:
            details.value = str(self.describe(number))

        def list_selected(numbers: list[int]) -> None:
            listed.value = str(self.listing(numbers)) if numbers else HINT

        controls = [on_change(choice, recolour)]
        if self.regroup is not None:
            low, high = self.clusters
            # Only when the slider is released, because clustering takes time.
            slider = ipywidgets.IntSlider(
                value=len(set(self.colours.get("concept", ()))) or low, min=low, max=high,
                description="clusters", continuous_update=False,
            )  # fmt: skip
            controls.append(on_change(slider, regroup))
        if self.pictures is not None:
            label = "connect captions with their pictures"
            box = ipywidgets.Checkbox(value=self.joins, description=label, indent=False)
            controls.append(on_change(box, join))
        on_change(view, describe, "hovered")
        on_change(view, list_selected, "selected")
        view.figure = json.dumps(plain(self.figure))
        view.layout.width = "calc(100% - 200px)"
        details.layout.width = "190px"
        return ipywidgets.VBox([ipywidgets.HBox(controls), scores, ipywidgets.HBox([view, details]), listed])
