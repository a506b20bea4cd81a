// The browser's side of LiveFigure: draws the newest figure, and leaves out those it has no time for.

function render({ model, el }) {
  const place = document.createElement("div");
  el.append(place);
  let busy = false;
  let wanted = "figure"; // the first thing to draw is the figure, whatever changes before that
  let closed = false;

  async function draw(what) {
    if (what === "figure" || !wanted) wanted = what;
    if (busy) return;
    busy = true;
    try {
      while (wanted && !closed) {
        const now = wanted;
        wanted = "";
        if (now === "figure") {
          await show(model, place, JSON.parse(model.get("figure")));
        } else {
          await plotly(model).relayout(place, { "title.subtitle.text": model.get("words") });
        }
        // Let the page breathe, and messages come in, between two pictures.
        await new Promise((done) => setTimeout(done, 50));
      }
    } finally {
      busy = false;
    }
  }

  model.on("change:figure", () => draw("figure"));
  model.on("change:words", () => draw("words"));
  // Not within the two seconds that a widget has to get ready.
  setTimeout(() => draw("figure"));
  return () => {
    closed = true;
    purge(place);
  };
}

export default { render };
