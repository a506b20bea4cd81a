// The browser side of LiveFigure: draws the newest figure and skips those it has no time for.

function render({ model, el }) {
  const place = document.createElement("div");
  const silence = document.createElement("div");
  silence.className = "silence";
  silence.hidden = true;
  silence.textContent =
    "This picture no longer changes: it is of the time that it names. The kernel was restarted, or is busy. " +
    "A run in a process of its own goes on; run this cell again to follow it.";
  silence.style = "padding: 6px 10px; background: rgba(238, 119, 51, 0.2); font: 13px sans-serif";
  el.append(silence, place);
  // The kernel tells the time every few seconds.
  let silent;
  function heard() {
    silence.hidden = true;
    clearTimeout(silent);
    silent = setTimeout(() => (silence.hidden = false), model.get("patience") * 1000);
  }
  heard();
  // The button that was pressed in each menu: a new figure would press the first ones again.
  const pressed = new Map();

  function remember({ menu, active }) {
    pressed.set(menu._index, active);
  }

  function asPressed(figure) {
    for (const [number, active] of pressed) {
      const menu = figure.layout.updatemenus?.[number];
      if (!menu?.buttons[active]) continue;
      menu.active = active;
      const [change, traces] = menu.buttons[active].args;
      for (const [key, value] of Object.entries(change)) {
        const [axis, setting] = key.split(".");
        if (traces) traces.forEach((trace, index) => (figure.data[trace][key] = value[index]));
        else figure.layout[axis] = { ...figure.layout[axis], [setting]: value };
      }
    }
    return figure;
  }

  let listens = false;
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
        if (now === "figure") {
          await show(model, place, asPressed(JSON.parse(model.get("figure"))));
          if (!listens) place.on("plotly_buttonclicked", remember);
          listens = true;
        } else {
          await plotly(model).relayout(place, { "title.subtitle.text": model.get("words") });
        }
        // Lets the page respond and messages arrive between two drawings.
        await new Promise((done) => setTimeout(done, 50));
      }
    } finally {
      busy = false;
    }
  }

  for (const trait of ["figure", "words"])
    model.on(`change:${trait}`, () => {
      heard();
      draw(trait);
    });
  // Loaded later, because a widget must be initialised within two seconds.
  setTimeout(() => draw("figure"));
  return () => {
    closed = true;
    clearTimeout(silent);
    purge(place);
  };
}

export default { render };
