// The browser side of ClusterExplorer: draws the map and reports the hovered dot, the lasso's selection and the zoom.

function render({ model, el }) {
  const place = document.createElement("div");
  el.append(place);
  let listening = false;
  let waiting;
  let zooming;
  let outline = []; // of the lasso, which plotly would forget with every new figure

  function send(trait, value) {
    model.set(trait, value);
    model.save_changes();
  }

  function listen() {
    listening = true;
    place.on("plotly_hover", ({ points }) => {
      // Debounced: only the dot where the mouse stops is requested.
      clearTimeout(waiting);
      const number = points[0].customdata;
      waiting = setTimeout(() => {
        if (number !== undefined && number !== model.get("hovered")) send("hovered", number);
      }, 60);
    });
    const select = (event) => {
      outline = event?.points?.length ? (place.layout.selections ?? []) : [];
      const numbers = (event?.points ?? []).map((point) => point.customdata);
      send("selected", numbers.filter((number) => number !== undefined));
    };
    place.on("plotly_selected", select);
    place.on("plotly_deselect", () => select());
    place.on("plotly_relayout", (change) => {
      if (!Object.keys(change).some((key) => key.startsWith("xaxis.") || key.startsWith("yaxis."))) return;
      clearTimeout(zooming);
      zooming = setTimeout(() => send("zoom", [...place.layout.xaxis.range, ...place.layout.yaxis.range]), 250);
    });
  }

  async function draw() {
    const figure = JSON.parse(model.get("figure"));
    if (figure.layout.meta?.searched) outline = [];
    figure.layout.selections = outline;
    // Keeps the zoom that the user has chosen, but not the selection, which the figure holds.
    figure.layout.uirevision = "map";
    figure.layout.selectionrevision = Date.now();
    await show(model, place, figure, { scrollZoom: true });
    if (!listening) listen();
  }

  model.on("change:figure", draw);
  model.on("change:images", () => plotly(model).relayout(place, { images: JSON.parse(model.get("images")) }));
  // Loaded later, because a widget must be initialised within two seconds.
  setTimeout(draw);
  return () => {
    clearTimeout(waiting);
    clearTimeout(zooming);
    purge(place);
  };
}

export default { render };
