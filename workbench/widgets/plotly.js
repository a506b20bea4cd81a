// Shared by all widgets, whose own script follows: loads plotly.js once per page.

function plotly(model) {
  if (!globalThis.workbenchPlotly) {
    // Hides module loaders, to which plotly.js would otherwise export itself.
    const module = { exports: {} };
    new Function("module", "exports", "define", model.get("library"))(module, module.exports, undefined);
    globalThis.workbenchPlotly = module.exports;
  }
  return globalThis.workbenchPlotly;
}

function purge(place) {
  if (globalThis.workbenchPlotly) globalThis.workbenchPlotly.purge(place);
}

