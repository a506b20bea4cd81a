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

// The element is as high as the figure: plotly.js would take its height anew from an element without one, which is
// nothing, when the window changes its size. No button that uploads the figure to a cloud.
async function show(model, place, { data, layout }, config = {}) {
  const library = plotly(model);
  place.style.height = `${layout.height}px`;
  place.closest("[class*=workbench-widget-]")?.addEventListener("focusin", keepKeys);
  await library.react(place, data, layout, { responsive: true, displaylogo: false, showSendToCloud: false, ...config });
}

// JupyterLab would take arrow keys and Enter away from lists and buttons.
function keepKeys({ target }) {
  if (target.matches("select, button, [role=slider]")) target.setAttribute("data-lm-suppress-shortcuts", "");
}

function purge(place) {
  if (globalThis.workbenchPlotly) globalThis.workbenchPlotly.purge(place);
}

