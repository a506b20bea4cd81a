// The browser side of RunBrowser: a table to filter, sort and select from, with the curves and settings of the selection.

function element(name, properties) {
  return Object.assign(document.createElement(name), properties);
}

function render({ model, el }) {
  el.classList.add("workbench-runs");
  const filter = element("input", {
    type: "search",
    placeholder: "filter: words, training.lr=0.001, step>30",
    ariaLabel: "filter runs",
    value: JSON.parse(model.get("shown")).filter,
  });
  const release = element("button", { type: "button", textContent: "clear selection" });
  const read = element("button", { type: "button", textContent: "read again" });
  const words = element("span", { className: "words", role: "status" });
  const bar = element("div", { className: "bar" });
  bar.append(filter, release, read, words);
  const table = element("div", { className: "table" });
  const place = element("div", { className: "figure" });
  const differences = element("div", { className: "differences" });
  el.append(bar, table, place, differences);

  let waiting;
  filter.oninput = () => {
    // Debounced: the filter is sent when typing stops.
    clearTimeout(waiting);
    waiting = setTimeout(() => model.send({ filter: filter.value }), 150);
  };
  release.onclick = () => model.send({ release: true });
  read.onclick = () => model.send({ read: true });
  table.onclick = ({ target }) => {
    const { sort, run } = target.closest("[data-sort], [data-run]")?.dataset ?? {};
    if (sort !== undefined) model.send({ sort });
    else if (run !== undefined) model.send({ pick: run });
  };

  function focused() {
    const { sort, run } = document.activeElement?.closest(".workbench-runs [data-sort], .workbench-runs [data-run]")
      ?.dataset ?? {};
    if (sort !== undefined) return `[data-sort="${CSS.escape(sort)}"]`;
    return run === undefined ? null : `[data-run="${CSS.escape(run)}"] input`;
  }

  function draw() {
    const shown = JSON.parse(model.get("shown"));
    // Keeps the keyboard focus on the same control.
    const before = table.contains(document.activeElement) ? focused() : null;
    table.innerHTML = shown.table;
    if (before) table.querySelector(before)?.focus({ preventScroll: true });
    words.textContent = shown.words;
    differences.innerHTML = shown.differences;
  }

  async function drawFigure() {
    const figure = model.get("figure");
    place.hidden = !figure;
    if (figure) await show(model, place, JSON.parse(figure));
    else purge(place);
  }

  model.on("change:shown", draw);
  model.on("change:figure", drawFigure);
  draw();
  // Loaded later, because a widget must be initialised within two seconds.
  setTimeout(drawFigure);
  return () => {
    clearTimeout(waiting);
    purge(place);
  };
}

export default { render };
