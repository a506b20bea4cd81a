"""The parts that all widgets share: the browser side with plotly.js, controls and static outputs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.figures.display import (
    DARK,
    MIME,
    can_show_widgets,
    figure_bundle,
    holds_library,
    holds_pictures,
)
from workbench.figures.gallery import Gallery

if TYPE_CHECKING:
    import plotly.graph_objects as go


# What a reader of the saved notebook is told. The style hides this note and the copies while there is a
# widget, and the line that stands in a widget's place where there is none.
NOTE = """<style>
.jp-OutputArea-child:has(+ .jp-OutputArea-child .workbench-note) > .jp-OutputArea-output:not(:has(*)),
{hidden} {{ display: none; }}
</style>
<div class="{kind}" style="font-size:12px">As it was saved. Run this cell to {remedy}.</div>"""
CHILD = ".jp-OutputArea-child"


def is_live(live: bool | None) -> bool:
    """Whether to show widgets: `live` if given, otherwise if a front end displays the notebook."""
    return can_show_widgets() if live is None else live


class NotebookWidget:
    """Base of the widgets. Displays a widget and the static outputs that a saved notebook keeps.

    The browser hides the static outputs while the widget is live. Headless, only they are displayed.
    """

    _live: bool
    _copies_hidden = True  # while there is a widget

    def _outputs(self) -> list[Any]:
        """The static outputs: figures, galleries, MIME bundles, or None for one that is still empty."""
        raise NotImplementedError

    def _widget(self, changed: Callable[..., None]) -> Any:
        """The ipywidget. It calls `changed` with all new outputs."""
        raise NotImplementedError

    def _ipython_display_(self) -> None:
        from IPython.display import display

        copies: list[Any] = []
        libraries: list[bool] = []
        note: dict[str, Any] = {}

        def changed(*outputs: Any) -> None:
            nonlocal note
            bundles = [_bundle(output, library) for output, library in zip(outputs, libraries, strict=True)]
            for copy, bundle in zip(copies, bundles, strict=True):
                copy.update(bundle, raw=True)
            if note != as_saved(bundles, hidden):
                note = as_saved(bundles, hidden)
                place.update(note, raw=True)

        outputs = self._outputs()
        hidden = len(outputs) if self._copies_hidden else 0
        widget = self._widget(changed) if self._live else None
        bundles = [_bundle(output) for output in outputs if self._live or output is not None]
        note = as_saved(bundles, hidden)
        if widget is not None:
            widget.add_class(f"workbench-widget-{hidden}")
            display(view_of(widget), raw=True)
            place = display(note, raw=True, display_id=True)
        for bundle in bundles:
            libraries.append(holds_library(bundle))
            copies.append(display(bundle, raw=True, display_id=self._live or None))


def browser_side(name: str, *texts: str, **traits: Any) -> Any:
    """Create a widget that runs NAME.js (with NAME.css) in the browser and has plotly.js as trait `library`.

    `texts` are the names of further text traits, `traits` are traits of other types.
    """
    import anywidget
    import traitlets
    from plotly.offline import get_plotlyjs

    folder = Path(__file__).parent
    traits |= {"library": traitlets.Unicode(get_plotlyjs())} | {text: traitlets.Unicode() for text in texts}
    members: dict[str, Any] = {key: trait.tag(sync=True) for key, trait in traits.items()}
    members["_esm"] = "".join(
        (folder / f"{file}.js").read_text(encoding="utf-8") for file in ("plotly", name)
    )
    style = folder / f"{name}.css"
    members["_css"] = DARK + (style.read_text(encoding="utf-8") if style.is_file() else "")
    return type("BrowserSide", (anywidget.AnyWidget,), members)()


def view_of(widget: Any) -> dict[str, Any]:
    """The bundle that displays a widget, with an empty text: readers without widgets have the copies."""
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return {"application/vnd.jupyter.widget-view+json": view, "text/plain": ""}


def on_change(control: Any, react: Callable[[Any], None], trait: str = "value") -> Any:
    """Call `react` with every new value of a control, and return the control."""
    control.observe(lambda change: react(change["new"]), names=trait)
    return control


def show_plain(figure: "go.Figure") -> None:
    """Display a static figure, which needs neither widget nor kernel."""
    from IPython.display import display

    display(figure_bundle(figure), raw=True)


def as_saved(copies: Sequence[dict[str, Any]], hidden: int, remedy: str = "use it") -> dict[str, Any]:
    """The note between a widget and its copies; while there is a widget, so many of them are hidden."""
    has_pictures = any(MIME in copy and holds_pictures(copy[MIME]) for copy in copies)
    kind = "workbench-note workbench-pictures" if has_pictures else "workbench-note"
    widget = f"{CHILD}:has(.workbench-widget-{hidden})"
    places = [widget + f" + {CHILD}" * (1 + copy) for copy in range(1 + hidden)]
    return {
        "text/html": NOTE.format(hidden=",\n".join(places), remedy=remedy, kind=kind),
        "text/plain": "As it was saved.",
    }


def _bundle(output: Any, library: bool | None = None) -> dict[str, Any]:
    if output is None:
        return {"text/plain": ""}
    if isinstance(output, Gallery):
        return {"text/html": str(output), "text/plain": repr(output)}
    return output if isinstance(output, dict) else figure_bundle(output, library)
