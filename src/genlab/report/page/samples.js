// What the shown runs drew by the time that each had spent as much as the others.

const MOST_TILES = 48;

function renderSamples(section) {
  const own = { axis: "examples", share: 1, every: false };
  const pictures = frames();
  const slider = make("input", { type: "range", min: "0", max: "200", value: "200", step: "1", "aria-label": "budget", on: { input: () => { stop(); move(); } } });
  const said = make("output", {});
  const play = make("button", { type: "button", on: { click: () => (timer == null ? start() : stop()) } }, "Play");
  const tiles = make("div", { class: "tiles" });
  const more = make("p", { class: "hint" });
  let timer = null;
  let made = []; // {run, frames, picture, caption, at}

  section.append(make("div", { class: "controls" },
    choice("equal", AXIS_NAMES, own.axis, (value) => { own.axis = value; fill(); }),
    rows.some((row) => row.runs.length > 1) ? choice("seeds", [["one", "the first"], ["each", "each"]], "one", (value) => { own.every = value === "each"; fill(); }) : null),
  make("div", { class: "timeline" }, play, slider, said), tiles, more);

  function fill() {
    const chosen = shownRows().flatMap((row) => (own.every ? row.runs : row.runs.filter((run) => pictures[run].length).slice(0, 1).concat(row.runs.some((run) => pictures[run].length) ? [] : row.runs.slice(0, 1)))
      .map((run) => ({ row, run })));
    made = chosen.slice(0, MOST_TILES).map(({ row, run }) => {
      const holder = make("div", {});
      const caption = make("small", {});
      const seed = own.every && row.runs.length > 1 ? ` seed ${data.runs[run].seed}` : "";
      const figure = make("figure", {}, holder, make("figcaption", {}, swatch(shown.get(row.place)), bdi(row.name + seed), caption));
      const own_ = pictures[run].map((frame) => ({ ...frame, spent: spent(run, own.axis, frame.examples) })).filter((frame) => Number.isFinite(frame.spent));
      return { row, run, frames: own_, holder, caption, figure, at: -2 };
    });
    tiles.replaceChildren(...made.map((tile) => tile.figure));
    more.textContent = made.length === 0 ? "Tick rows of the table to see their samples."
      : chosen.length > MOST_TILES ? `The first ${MOST_TILES} of ${chosen.length}.` : "";
    move();
  }

  const largest = () => Math.max(0, ...made.flatMap((tile) => tile.frames.map((frame) => frame.spent)));

  function move() {
    const budget = (Number(slider.value) / Number(slider.max)) * largest();
    said.textContent = `at ${spentText(own.axis, budget)}`;
    slider.setAttribute("aria-valuetext", spentText(own.axis, budget));
    for (const tile of made) {
      const place = tile.frames.findLastIndex((frame) => frame.spent <= budget * (1 + 1e-9));
      const ended = place >= 0 && place === tile.frames.length - 1;
      const text = place < 0 ? (tile.frames.length ? `nothing yet; first at ${spentText(own.axis, tile.frames[0].spent)}` : "no samples")
        : `after ${spentText(own.axis, tile.frames[place].spent)}${ended ? ", its last" : ""}`;
      if (tile.caption.textContent !== text) tile.caption.textContent = text;
      if (place === tile.at) continue;
      tile.at = place;
      paint(tile, tile.frames[place], text);
    }
  }

  function paint(tile, frame, text) {
    if (frame == null) { tile.holder.replaceChildren(make("div", { class: "empty" }, "–")); return; }
    if (frame.text != null) { tile.holder.replaceChildren(make("pre", { tabindex: "0", role: "region", "aria-label": `text of ${tile.row.name}` }, bdi(frame.text))); return; }
    let image = tile.holder.querySelector("img");
    if (image == null) {
      image = make("img", { decoding: "async" });
      tile.holder.replaceChildren(make("button", { type: "button", on: { click: () => enlarge(tile) } }, image));
    }
    assign(image, { src: frame.src, width: frame.width, height: frame.height, alt: `samples of ${tile.row.name} ${text}`, class: frame.width < 100 ? "pixels" : "smooth" });
  }

  function enlarge(tile) {
    const image = tile.holder.querySelector("img");
    const close = make("button", { type: "button", on: { click: () => dialog.close() } }, "Close");
    const dialog = make("dialog", { "aria-label": `samples of ${tile.row.name}`, on: { close: () => dialog.remove(), click: (event) => event.target === dialog && dialog.close() } },
      image.cloneNode(), make("p", {}, bdi(tile.row.name), " ", make("small", {}, tile.caption.textContent)), close);
    document.body.append(dialog);
    dialog.showModal();
  }

  function start() {
    if (Number(slider.value) >= Number(slider.max)) slider.value = 0;
    play.textContent = "Pause";
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      move();
      if (Number(slider.value) >= Number(slider.max)) stop();
    }, 40);
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  whenShownChanges(fill);
  fill();
}
