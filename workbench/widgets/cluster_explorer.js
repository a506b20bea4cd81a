// The browser side of ClusterExplorer: draws the map and reports the hovered dot and the lasso's selection.

function render({ model, el }) {
  const place = document.createElement("div");
  el.append(place);
  let listening = false;
  let waiting;

  function listen() {
    listening = true;
    place.on("plotly_hover", ({ points }) => {
      // Debounced: only the dot where the mouse stops is requested.
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
  // Loaded later, because a widget must be initialised within two seconds.
  setTimeout(draw);
  return () => {
    clearTimeout(waiting);
    purge(place);
  };
}

export default { render };
