"""What all widgets share: a browser side with plotly.js, controls, and outputs that stay in a notebook."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.figures.gallery import Gallery

if TYPE_CHECKING:
    import plotly.graph_objects as go


def is_live(live: bool | None) -> bool:
    """Whether to show widgets: as `live` says, else unless `WORKBENCH_HEADLESS=1`."""
    return os.environ.get("WORKBENCH_HEADLESS") != "1" if live is None else live


class NotebookWidget:
    """Shows a widget, and below it the outputs that stay when the saved notebook is opened without a kernel.

    The browser hides these outputs while there is a widget. Headless there are only the outputs.
    """

    _live: bool

    def _outputs(self) -> list[Any]:
        """Figures, galleries, bundles of MIME types, or None for an empty place."""
        raise NotImplementedError

    def _widget(self, changed: Callable[..., None]) -> Any:
        """The ipywidget; it calls `changed` with the new outputs."""
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
    """A widget with NAME.js (and NAME.css) as its browser side, and plotly.js as its trait `library`.

    `texts` are further traits that hold text; `traits` those of other types.
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
    """The control, which from now on calls `react` with every new value."""
    control.observe(lambda change: react(change["new"]), names=trait)
    return control


def show_plain(figure: "go.Figure") -> None:
    """Display a figure that needs neither widget nor kernel."""
    from IPython.display import display

    display(plain_bundle(figure), raw=True)


def plain_bundle(figure: "go.Figure") -> dict[str, Any]:
    """The figure as JupyterLab, papermill and nbconvert store it, with a text for readers without plotly."""
    title = figure.layout.title.text or "figure"
    return {"application/vnd.plotly.v1+json": plain(figure), "text/plain": f"<{title}>"}


def plain(figure: "go.Figure") -> dict[str, Any]:
    """The figure as JSON, read back."""
    from plotly.io import to_json

    return dict(json.loads(to_json(figure)))


def _bundle(output: Any) -> dict[str, Any]:
    if output is None:
        return {"text/plain": ""}
    if isinstance(output, Gallery):
        return {"text/html": str(output), "text/plain": "<pictures>"}
    return output if isinstance(output, dict) else plain_bundle(output)
