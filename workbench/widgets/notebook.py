"""The parts that all widgets share: the browser side with plotly.js, controls and static outputs."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.figures.gallery import Gallery

if TYPE_CHECKING:
    import plotly.graph_objects as go


def is_live(live: bool | None) -> bool:
    """Whether to show widgets: `live` if given, otherwise unless `WORKBENCH_HEADLESS=1`."""
    return os.environ.get("WORKBENCH_HEADLESS") != "1" if live is None else live


class NotebookWidget:
    """Base of the widgets. Displays a widget and the static outputs that a saved notebook keeps.

    The browser hides the static outputs while the widget is live. Headless, only they are displayed.
    """

    _live: bool

    def _outputs(self) -> list[Any]:
        """The static outputs: figures, galleries, MIME bundles, or None for one that is still empty."""
        raise NotImplementedError

    def _widget(self, changed: Callable[..., None]) -> Any:
        """The ipywidget. It calls `changed` with all new outputs."""
        raise NotImplementedError

    def _ipython_display_(self) -> None:
        from IPython.display import display

        copies: list[Any] = []

        def changed(*outputs: Any) -> None:
            for copy, output in zip(copies, outputs, strict=True):
                copy.update(_bundle(output), raw=True)

        if self._live:
            display(self._widget(changed))
        for output in self._outputs():
            if self._live or output is not None:
                copies.append(display(_bundle(output), raw=True, display_id=self._live or None))


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
    if (style := folder / f"{name}.css").is_file():
        members["_css"] = style.read_text(encoding="utf-8")
    return type("BrowserSide", (anywidget.AnyWidget,), members)()


def on_change(control: Any, react: Callable[[Any], None], trait: str = "value") -> Any:
    """Call `react` with every new value of a control, and return the control."""
    control.observe(lambda change: react(change["new"]), names=trait)
    return control


def show_plain(figure: "go.Figure") -> None:
    """Display a static figure, which needs neither widget nor kernel."""
    from IPython.display import display

    display(plain_bundle(figure), raw=True)


def plain_bundle(figure: "go.Figure") -> dict[str, Any]:
    """The MIME bundle of a figure for notebooks, with a text for viewers without plotly."""
    title = figure.layout.title.text or "figure"
    return {"application/vnd.plotly.v1+json": plain(figure), "text/plain": f"<{title}>"}


def plain(figure: "go.Figure") -> dict[str, Any]:
    """A figure as plain dictionaries and lists."""
    from plotly.io import to_json

    return dict(json.loads(to_json(figure)))


def _bundle(output: Any) -> dict[str, Any]:
    if output is None:
        return {"text/plain": ""}
    if isinstance(output, Gallery):
        return {"text/html": str(output), "text/plain": "<pictures>"}
    return output if isinstance(output, dict) else plain_bundle(output)
