"""How figures are shown, in a notebook, its HTML export and a report; and whether anybody watches."""

import base64
import functools
import gzip
import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

MIME = "application/vnd.plotly.v1+json"
# No button that uploads the figure to a cloud.
CONFIG = {"displaylogo": False, "responsive": True, "showSendToCloud": False}
LIBRARY = "workbench-plotly"  # the class of the element that holds plotly.js in an HTML export
PLOTLY_DEFAULTS = ("plotly_mimetype", "plotly_mimetype+notebook", "jupyterlab", "vscode")

# Reads plotly.js and the figure, both gzipped. The module loader of the export's page is kept out: it would
# take plotly.js for a module of its own. Plotly's sliders know no keys.
DRAW = """(async (place) => {
  const bytes = (text) => new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))]);
  const unzipped = (text) => bytes(text).stream().pipeThrough(new DecompressionStream("gzip"));
  const unpack = (text) => new Response(unzipped(text)).text();
  globalThis.workbenchLibrary ??= (async () => {
    const module = { exports: {} };
    const library = document.querySelector("script.LIBRARY").textContent;
    new Function("module", "exports", "define", await unpack(library))(module, module.exports, undefined);
    return module.exports;
  })();
  const figure = JSON.parse(await unpack(place.dataset.figure));
  const plotly = await globalThis.workbenchLibrary;
  await plotly.newPlot(place, { ...figure, config: { ...figure.config, responsive: true } });
  const slider = place.layout.sliders?.[0];
  if (!slider) return;
  place.tabIndex = 0;
  place.ariaLabel = "animation: the left and right arrow keys move its slider";
  place.addEventListener("keydown", ({ key }) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[key] ?? 0;
    const next = slider.steps[(slider.active ?? 0) + step];
    if (step && next) plotly.animate(place, ...next.args);
  });
})(document.currentScript.previousElementSibling);""".replace("LIBRARY", LIBRARY)

# Figures are drawn on white. On a dark page the browser inverts them, but not their hues; the black that
# white becomes lets the page through. A figure with pictures can be read on any page and stays as it is
# (`workbench.figures.style.finish`). Where it has a heat map too, which would be a white slab, all but its
# pictures is inverted. Plotly draws heat maps as images, which are no pictures.
INVERTED = """:is(
    .js-plotly-plot:not(:has(image:not(.heatmaplayer *))),
    .js-plotly-plot:has(.heatmaplayer image),
    img.plot-img
  ) {
    filter: invert(1) hue-rotate(180deg);
    mix-blend-mode: screen;
  }
  .js-plotly-plot:has(.heatmaplayer image) image:not(.heatmaplayer *) {
    filter: invert(1) hue-rotate(180deg);
  }"""
# Where JupyterLab shows a saved figure as an image, pictures in it cannot be told from the rest:
# `WITH_PICTURES` stands above such figures.
#
# JupyterLab drops style sheets from notebooks that are not trusted, which is every saved notebook of somebody
# else before its first cell runs. There, figures without pictures are dark on a white card also on a dark
# page. Nothing in an output that JupyterLab does not run can change this: a figure is JSON and an image, its
# colours are the same for every theme, and the palette has colours that are too dark for a dark page.
DARK = f"""[data-jp-theme-light="false"] {{
  {INVERTED}
  .jp-OutputArea:has(.workbench-pictures) img.plot-img {{
    filter: none; mix-blend-mode: normal;
  }}
}}
"""

# JupyterLab breaks long lines of text in the middle of words.
WHOLE_WORDS = ".jp-OutputArea-output pre { word-break: normal; overflow-wrap: anywhere; }\n"

CLEAR = "rgba(0,0,0,0)"  # the background of figures with pictures
WITH_PICTURES = '<span class="workbench-pictures"></span>'  # an output before such a figure

# The cell that holds plotly.js for the notebook's HTML export, and the message that ran it.
_carrier: tuple[str | None, str] | None = None


def is_unattended() -> bool:
    """Whether nobody is watching: `WORKBENCH_HEADLESS=1`, or papermill, nbconvert or nbval runs the notebook.

    A front end that a person sits at lets code ask for input; a program that runs notebooks does not.
    """
    message = _message()
    answers = message is None or message.get("content", {}).get("allow_stdin", True)
    return os.environ.get("WORKBENCH_HEADLESS") == "1" or not answers


def can_show_widgets() -> bool:
    """Whether there is a notebook kernel, and somebody watches."""
    return _kernel() is not None and not is_unattended()


def plain(figure: "go.Figure") -> dict[str, Any]:
    """The figure as JSON, read back."""
    from plotly.io import to_json

    return dict(json.loads(to_json(figure)))


def figure_bundle(figure: "go.Figure", library: bool | None = None) -> dict[str, Any]:
    """The figure as notebooks store it: for JupyterLab, for HTML exports, and as a text for other readers.

    An HTML export needs no network: one figure of a notebook holds plotly.js (2 MB), by default the first;
    `library` says whether this one does.
    """
    return _bundle(plain(figure), library)


def holds_pictures(figure: dict[str, Any]) -> bool:
    """Whether `workbench.figures.style.finish` has drawn this figure for pages of any colour."""
    return bool(figure["layout"].get("paper_bgcolor") == CLEAR)


def holds_library(bundle: dict[str, Any]) -> bool:
    """Whether this bundle has plotly.js in it."""
    return LIBRARY in bundle.get("text/html", "")[:100]


def follow_theme() -> None:
    """Let this notebook's figures follow JupyterLab's theme, and its text break between words.

    The style sheet is one of the cell's outputs.
    """
    if _kernel() is None:
        return
    from IPython.display import display

    places = ".jp-OutputArea-child", ".jp-Cell-outputWrapper:not(:has(.jp-OutputArea-child + *))"
    kinds = ":is(style.workbench-dark, span.workbench-pictures)"
    hidden = "".join(f"{place}:has({kinds}) {{ display: none; }}\n" for place in places)
    style = f'<style class="workbench-dark">{hidden}{WHOLE_WORDS}{DARK}</style>'
    display({"text/html": style, "text/plain": ""}, raw=True)


def use_in_notebooks() -> None:
    """Show every plotly figure of this kernel as `figure_bundle` does, unless the user chose a renderer."""
    import plotly.io
    from plotly.io.base_renderers import MimetypeRenderer

    if os.environ.get("PLOTLY_RENDERER") or plotly.io.renderers.default not in PLOTLY_DEFAULTS:
        return

    class Renderer(MimetypeRenderer):
        def to_mimebundle(self, fig_dict: dict[str, Any]) -> dict[str, Any]:
            figure = plain(fig_dict)
            if holds_pictures(figure):
                _say_pictures()
            return _bundle(figure)

    plotly.io.renderers["workbench"] = Renderer()
    plotly.io.renderers.default = "workbench"


def _say_pictures() -> None:
    if _kernel() is not None:
        from IPython.display import display

        display({"text/html": WITH_PICTURES, "text/plain": ""}, raw=True)


def _bundle(figure: dict[str, Any], library: bool | None = None) -> dict[str, Any]:
    # JupyterLab follows the window by itself; plotly.js would take the output's height, which is none.
    figure = figure | {"config": CONFIG | {"responsive": False}}
    layout = figure["layout"]
    height = layout.get("height", 450)
    place = f'<div style="height:{height}px" data-figure="{_packed(json.dumps(figure))}"></div>'
    drawn = f"{place}\n<script>{DRAW}</script>"
    if _carries_library() if library is None else library:
        drawn = f'<script type="text/plain" class="{LIBRARY}">{_library()}</script>\n{drawn}'
    title = layout.get("title", {}).get("text") or "figure"
    return {MIME: figure, "text/html": drawn, "text/plain": f"<{title}>"}


def _carries_library() -> bool:
    """Whether the cell that runs is the first that shows a figure; once a run of the cell."""
    global _carrier
    message = _message()
    if message is None:
        return False
    place = message.get("metadata", {}).get("cellId"), message.get("header", {}).get("msg_id", "")
    again = _carrier is not None and place[0] is not None and place[0] == _carrier[0] and place != _carrier
    if _carrier is None or again:
        _carrier = place
        return True
    return False


@functools.cache
def _library() -> str:
    from plotly.offline import get_plotlyjs

    return _packed(get_plotlyjs())


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _kernel() -> Any:
    """The notebook kernel that this is, if any."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython.get_ipython(), "kernel", None) if ipython else None


def _message() -> dict[str, Any] | None:
    """What the front end asked the kernel to do just now."""
    kernel = _kernel()
    return None if kernel is None else kernel.get_parent()
