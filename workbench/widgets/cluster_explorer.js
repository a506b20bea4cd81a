// The browser's side of ClusterExplorer: draws the map, and says which dot the mouse is on and what was lassoed.

function render({ model, el }) {
  const place = document.createElement("div");
  el.append(place);
  let listening = false;
  let waiting;

  function listen() {
    listening = true;
    place.on("plotly_hover", ({ points }) => {
      // A mouse that crosses a hundred dots asks for the one it stops at.
      clearTimeout(waiting);
      const number = points[0].customdata;
      waiting = setTimeout(() => {
        if (number === undefined || number === model.get("hovered")) return;
        model.set("hovered", number);
        model.save_changes();
      }, 60);
    });
    const select = (event) => {
      const numbers = (event?.points ?? []).map((point) => point.customdata);
      model.set("selected", numbers.filter((number) => number !== undefined));
      model.save_changes();
    };
    place.on("plotly_selected", select);
    place.on("plotly_deselect", () => select());
  }

  async function draw() {
    await show(model, place, JSON.parse(model.get("figure")), { scrollZoom: true });
    if (!listening) listen();
  }

  model.on("change:figure", draw);
  // Not within the two seconds that a widget has to get ready.
  setTimeout(draw);
  return () => {
    clearTimeout(waiting);
    purge(place);
  };
}

export default { render };
