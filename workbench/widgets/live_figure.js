// The browser side of LiveFigure: draws the newest figure and skips those it has no time for.

function render({ model, el }) {
  const place = document.createElement("div");
  el.append(place);
  let busy = false;
  let wanted = "figure"; // the figure is drawn first, whatever changes before
  let closed = false;

  async function draw(what) {
    if (what === "figure" || !wanted) wanted = what;
    if (busy) return;
    busy = true;
    try {
      while (wanted && !closed) {
        const now = wanted;
        wanted = "";
        const library = plotly(model);
        if (now === "figure") {
          const { data, layout } = JSON.parse(model.get("figure"));
          await library.react(place, data, layout, { responsive: true, displaylogo: false });
        } else {
          await library.relayout(place, { "title.subtitle.text": model.get("words") });
        }
        // Lets the page respond and messages arrive between two drawings.
        await new Promise((done) => setTimeout(done, 50));
      }
    } finally {
      busy = false;
    }
  }

  model.on("change:figure", () => draw("figure"));
  model.on("change:words", () => draw("words"));
  // Loaded later, because a widget must be initialised within two seconds.
  setTimeout(() => draw("figure"));
  return () => {
    closed = true;
    purge(place);
  };
}

export default { render };
