// Shared by all widgets, whose own script follows: plotly.js, read once a page.

function plotly(model) {
  if (!globalThis.workbenchPlotly) {
    // plotly.js hands itself to a module loader where there is one; here it shall come back to us and nowhere else.
    const module = { exports: {} };
    new Function("module", "exports", "define", model.get("library"))(module, module.exports, undefined);
    globalThis.workbenchPlotly = module.exports;
  }
  return globalThis.workbenchPlotly;
}

function purge(place) {
  if (globalThis.workbenchPlotly) globalThis.workbenchPlotly.purge(place);
}

