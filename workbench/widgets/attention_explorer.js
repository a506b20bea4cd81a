// The browser side of AttentionExplorer: buttons for words and regions, the figure, and clicks on it.

const several = (event) => Boolean(event?.shiftKey || event?.ctrlKey || event?.metaKey);

function line(heading, kind, parts, model) {
  const row = document.createElement("div");
  row.className = "line";
  const buttons = document.createElement("div");
  const name = document.createElement("span");
  name.className = "heading";
  name.textContent = heading;
  parts.forEach(({ text, share, strength, chosen }, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = kind;
    button.dataset.number = number;
    button.setAttribute("aria-pressed", Boolean(chosen));
    if (chosen) button.style.setProperty("--chosen", chosen);
    button.style.setProperty("--strength", strength);
    button.classList.toggle("strong", strength > 0.8);
    button.append(text);
    const value = document.createElement("small");
    // Reserves the space, so that the layout does not jump when shares appear.
    value.textContent = share || "\u00a0";
    button.append(value);
    button.onclick = (event) => model.send({ [kind]: number, more: several(event) });
    buttons.append(button);
  });
  row.append(name, buttons);
  return row;
}

function render({ model, el }) {
  el.classList.add("workbench-attention");
  const lines = document.createElement("div");
  const place = document.createElement("div");
  place.className = "figure";
  const hint = document.createElement("div");
  hint.className = "hint";
  hint.textContent = 
    "Click a word or a region here, in the picture or in a map, and again to clear the selection. Shift adds a word.";
  el.append(lines, hint, place);
  let listening = false;

  function listen() {
    listening = true;
    place.on("plotly_click", ({ points, event }) => {
      const { x, y, data } = points[0];
      // Rows are words and columns regions, in both maps.
      if (data.name === "picture") model.send({ at: [x, y] });
      else if (data.name === "token to region") model.send({ word: Math.round(y), more: several(event) });
      else if (data.name === "region to token") model.send({ region: Math.round(x) });
    });
  }

  async function draw() {
    const { figure, words, regions } = JSON.parse(model.get("shown"));
    const pressed = lines.contains(document.activeElement) ? document.activeElement : null;
    const rows = [line("words", "word", words, model)];
    if (regions.length) rows.push(line("regions", "region", regions, model));
    lines.replaceChildren(...rows);
    // Keeps the keyboard focus on the same button.
    if (pressed) lines.querySelector(`.${pressed.classList[0]}[data-number="${pressed.dataset.number}"]`)?.focus();
    await show(model, place, figure, { displayModeBar: false });
    if (!listening) listen();
  }

  model.on("change:shown", draw);
  // Loaded later, because a widget must be initialised within two seconds.
  setTimeout(draw);
  return () => purge(place);
}

export default { render };
