"""An interactive map of captions: hover a dot to see its picture, draw a lasso or search to list several."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from workbench.figures.cluster_map import cluster_map
from workbench.figures.display import plain
from workbench.figures.gallery import Gallery, Picture, data_uri, gallery
from workbench.figures.group_colours import group_colours
from workbench.figures.region_names import RegionName, region_names, spread_out
from workbench.widgets.notebook import NotebookWidget, browser_side, is_live, on_change
from workbench.widgets.picture_search import HasPictures

MOST_LISTED = 24
MOST_LINES = 400  # more could not be distinguished
CELLS = 11, 8  # pictures on the map at once, side by side and one above the other
THUMBNAIL = 44  # pixels
HINT = "Draw a lasso around dots, or search, to list captions here."


Labels = Sequence[Any] | np.ndarray


class Grouping(NamedTuple):
    """A clustering: the cluster of each caption, and scores of its quality."""

    labels: Labels
    scores: Mapping[str, float]


class ClusterExplorer(NotebookWidget):
    """Shows a map of captions, coloured by one of `colours`, with the hovered picture and the selection.

        ClusterExplorer(positions, pairs, rows, captions, {"concept": names, "category": categories},
                        regroup=lambda clusters: Grouping(...), clusters=(8, 256))

    `positions` [n, 2] are those of the captions, `rows` [n] are the rows of their pictures in `pairs`. The
    names of the groups of colour "concept" are written on the map. `quiet` are groups that are grey.
    `regroup` adds a slider for the number of clusters. Its result becomes the colour "concept", and its
    scores are shown; a cluster keeps its colour. `pictures` [m, 2] are positions of the pictures in
    `picture_rows`, and add a checkbox that connects captions with their pictures. `placed` are further
    points. Pictures on the map are a sample, and a finer one after zooming in. Under `WORKBENCH_HEADLESS=1`
    only the map is shown. Raises ValueError without `colours`, and for `pictures` without `picture_rows`.
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
        quiet: Collection[str] = (),
        regroup: Callable[[int], Grouping] | None = None,
        clusters: tuple[int, int] = (8, 256),
        pictures: np.ndarray | None = None,
        picture_rows: np.ndarray | None = None,
        placed: Sequence[RegionName] = (),
        live: bool | None = None,
    ) -> None:
        if not colours or (pictures is None) != (picture_rows is None):
            raise ValueError("ClusterExplorer: give at least one of colours, and picture_rows with pictures")
        self.positions, self.pairs, self.rows, self.captions = positions, pairs, rows, captions
        self.colours = dict(colours)
        self.title, self.quiet, self.placed = title, quiet, placed
        self.regroup, self.clusters = regroup, clusters
        self.pictures, self.picture_rows = pictures, picture_rows
        self.colour = next(iter(self.colours))
        self.joins = self.has_thumbnails = False
        self.selected: list[int] = []
        self.words = ""  # searched for; empty where a lasso selected
        self._concepts = group_colours(self.colours["concept"]) if "concept" in self.colours else {}
        self._regions = self._named()
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
            colours=self._concepts if self.colour == "concept" else None,
            quiet=self.quiet,
            regions=() if self.has_thumbnails else self._regions,
            selected=self.selected,
            pictures=self.pictures,
            joined=self._pairs() if self.joins else (),
            placed=self.placed,
            thumbnails=self.thumbnails() if self.has_thumbnails else (),
        )

    def describe(self, number: int) -> Gallery:
        """The picture and caption of dot `number`, or of picture `-1 - number` if it is negative."""
        if number < 0 and self.picture_rows is not None:
            row = int(self.picture_rows[-1 - number])
            return gallery([Picture(self.pairs.image(row), self.pairs.captions(row))])
        note = " · ".join(f"{name}: {values[number]}" for name, values in self.colours.items())
        row = int(self.rows[number])
        return gallery([Picture(self.pairs.image(row), [self.captions[number]], note=note)])

    def listing(self, numbers: Sequence[int], title: str = "selected") -> Gallery:
        """The pictures of the selected dots, at most 24 of them, each once with its selected captions."""
        labels = self.colours[self.colour]
        dots: dict[int, list[int]] = {}
        for number in numbers:
            if number >= 0:
                dots.setdefault(int(self.rows[number]), []).append(number)
        pictures = [
            Picture(
                self.pairs.image(row),
                [self.captions[dot] for dot in group],
                note=" · ".join(dict.fromkeys(str(labels[dot]) for dot in group)),
            )
            for row, group in list(dots.items())[:MOST_LISTED]
        ]
        count = sum(map(len, dots.values()))
        limit = f"; the first {MOST_LISTED} pictures are shown" if len(dots) > MOST_LISTED else ""
        return gallery(pictures, f"{count:,} captions of {len(dots):,} pictures {title}{limit}", size=110)

    def search(self, words: str) -> list[int]:
        """The dots whose captions contain all `words`, in any case and order."""
        parts = words.casefold().split()
        texts = (caption.casefold() for caption in self.captions)
        return [dot for dot, text in enumerate(texts) if parts and all(part in text for part in parts)]

    def group(self, clusters: int) -> str:
        """Cluster the captions again, colour by the result and return its scores as a line of text."""
        if self.regroup is None:
            raise ValueError("ClusterExplorer: this explorer has no `regroup`")
        grouping = self.regroup(clusters)
        before = (self.colours["concept"], self._concepts) if "concept" in self.colours else None
        self.colours["concept"], self.colour = list(grouping.labels), "concept"
        self._concepts = group_colours(grouping.labels, before)
        self._regions = self._named()
        return " · ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in grouping.scores.items())

    def thumbnails(self, view: Sequence[float] = ()) -> list[dict[str, Any]]:
        """Pictures in place of dots, as plotly's layout images: a sample of those in the rectangle `view`.

        `view` is (left, right, bottom, top) in the map's coordinates, by default the complete map.
        """
        low, high = self.positions.min(0), self.positions.max(0)
        if view:
            low, high = np.array(view[::2]), np.array(view[1::2])
        size = (high - low) / CELLS * 0.92
        chosen = spread_out(self.positions, low, high, CELLS)
        _, once = np.unique(np.asarray(self.rows)[chosen], return_index=True)
        place = {"xref": "x", "yref": "y", "xanchor": "center", "yanchor": "middle", "layer": "above"}
        return [
            {"source": data_uri(self.pairs.image(int(self.rows[dot])), THUMBNAIL)}
            | {"x": float(self.positions[dot, 0]), "y": float(self.positions[dot, 1])}
            | {"sizex": float(size[0]), "sizey": float(size[1]), "sizing": "contain"}
            | place
            for dot in chosen[once]
        ]

    def _named(self) -> list[RegionName]:
        labels = self.colours.get("concept")
        return [] if labels is None else region_names(self.positions, labels, self.placed)

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

        view = browser_side(
            "cluster_explorer",
            "figure",
            "images",
            hovered=traitlets.Int(None, allow_none=True),
            selected=traitlets.List(traitlets.Int()),
            zoom=traitlets.List(traitlets.Float()),
        )
        details, listed, scores = ipywidgets.HTML(), ipywidgets.HTML(HINT), ipywidgets.HTML()
        choice = ipywidgets.Dropdown(options=list(self.colours), value=self.colour, description="colour by")
        box = ipywidgets.Text(placeholder="words to light up, then Enter", continuous_update=False)

        def redraw() -> None:
            figure = self.figure
            picture = plain(figure)
            picture["layout"]["meta"] = {"searched": bool(self.words)}
            if self.has_thumbnails and view.zoom:
                picture["layout"]["images"] = self.thumbnails(view.zoom)
            view.figure = json.dumps(picture)
            changed(figure)
            describe(view.hovered)
            list_selected()

        def recolour(name: str) -> None:
            self.colour = name
            redraw()

        def regroup(clusters: int) -> None:
            scores.value = escape(self.group(clusters))
            if "concept" not in choice.options:
                choice.options = list(self.colours)
            if choice.value == "concept":
                redraw()
            choice.value = "concept"

        def join(joins: bool) -> None:
            self.joins = joins
            redraw()

        def paint(has_thumbnails: bool) -> None:
            self.has_thumbnails = has_thumbnails
            redraw()

        def show_thumbnails(zoom: list[float]) -> None:
            if self.has_thumbnails:
                view.images = json.dumps(self.thumbnails(zoom))

        def describe(number: int | None) -> None:
            details.value = "" if number is None else str(self.describe(number))

        def list_selected() -> None:
            if self.selected:
                title = f"with “{self.words}”" if self.words else "selected"
                listed.value = str(self.listing(self.selected, title))
            else:
                listed.value = f"No caption contains “{escape(self.words)}”." if self.words else HINT

        def lasso(numbers: list[int]) -> None:
            if numbers != self.selected:
                self.selected, self.words = numbers, ""
                box.value = ""
                list_selected()
                changed(self.figure)

        def search(words: str) -> None:
            if words != self.words:  # a lasso empties the box
                self.words, self.selected = words, self.search(words)
                view.selected = self.selected
                redraw()

        controls = [on_change(choice, recolour)]
        if self.regroup is not None:
            low, high = self.clusters
            # Only when the slider is released, because clustering takes time.
            slider = ipywidgets.IntSlider(
                value=len(set(self.colours.get("concept", ()))) or low, min=low, max=high,
                description="clusters", continuous_update=False,
            )  # fmt: skip
            controls.append(on_change(slider, regroup))
        controls.append(on_change(box, search))
        painted = ipywidgets.Checkbox(value=self.has_thumbnails, description="pictures", indent=False)
        controls.append(on_change(painted, paint))
        if self.pictures is not None:
            label = "connect captions with their pictures"
            joins = ipywidgets.Checkbox(value=self.joins, description=label, indent=False)
            controls.append(on_change(joins, join))
        on_change(view, describe, "hovered")
        on_change(view, lasso, "selected")
        on_change(view, show_thumbnails, "zoom")
        view.figure = json.dumps(plain(self.figure))
        view.layout.width = "calc(100% - 200px)"
        details.layout.width = "190px"
        painted.layout.width = "auto"
        row = ipywidgets.HBox(controls, layout={"flex_flow": "row wrap"})
        return ipywidgets.VBox([row, scores, ipywidgets.HBox([view, details]), listed])
