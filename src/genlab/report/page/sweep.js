// A sweep: which of its trials came to what, by state, and which settings led there (parallel coordinates).

const MOST_AXES = 8;

function renderSweeps(section) {
  for (const holder of section.querySelectorAll(".sweep")) {
    const sweep = data.sweeps[Number(holder.dataset.sweep)];
    filterByState(holder, sweep);
    if (sweep.settings.length > 0 && sweep.trials.some((trial) => trial.value != null)) parallel(holder.querySelector(".parallel"), sweep);
  }
}

function filterByState(holder, sweep) {
  const lines = [...holder.querySelectorAll("tbody tr")];
  const states = [...new Set(sweep.trials.map((trial) => trial.state))];
  if (states.length < 2) return;
  let only = null;
  const buttons = states.map((state) => make("button", { type: "button", "aria-pressed": "false", on: { click: () => {
    only = only === state ? null : state;
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(states[i] === only)));
    lines.forEach((line) => (line.hidden = only != null && line.dataset.state !== only));
  } } }, make("span", { class: `state ${state}` }, `${state} ${sweep.trials.filter((trial) => trial.state === state).length}`)));
  holder.querySelector(".controls").append(...buttons);
}

function parallel(place, sweep) {
  const numeric = (text) => text !== "" && Number.isFinite(Number(text));
  const axes = sweep.settings.filter((setting) => setting.name !== "seed").slice(0, MOST_AXES).map((setting) => {
    const given = setting.values.filter((value) => value !== "");
    const isNumber = given.length > 0 && given.every(numeric) && new Set(given).size > 2;
    return { name: setting.name, values: setting.values.map((value) => (value === "" ? null : isNumber ? Number(value) : value)), isNumber };
  });
  axes.push({ name: sweep.metric || "value", values: sweep.trials.map((trial) => trial.value), isNumber: true, isMetric: true });
  if (axes.length < 2) return;
  const holder = make("div", { class: "plot" });
  const scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Settings and what they led to" }, holder);
  scroll.style.border = "0";
  place.append(scroll);
  const [wide, high, top, bottom] = [Math.max(place.clientWidth - 18, axes.length * 110), 340, 44, 34];
  holder.style.minWidth = `${wide}px`;
  const xOf = (i) => 70 + (i * (wide - 150)) / (axes.length - 1);
  for (const axis of axes) {
    const known = axis.values.filter((value) => value != null);
    if (axis.isNumber) {
      axis.log = spread(known, axis.isMetric ? 20 : 8);
      axis.at = scale(known, high - bottom, top, axis.log);
      const few = [...new Set(known)]; // values that were tried are better marks than round ones
      axis.ticks = (few.length <= 8 ? few : axis.at.ticks).map((value) => [axis.at(value), brief(value)]);
    } else {
      const kinds = [...new Set(known)].sort();
      axis.at = (value) => top + ((kinds.indexOf(value) + 0.5) * (high - top - bottom)) / kinds.length;
      axis.ticks = kinds.length > 12 ? [] : kinds.map((kind) => [axis.at(kind), kind.length > 18 ? `${kind.slice(0, 17)}…` : kind]);
    }
  }
  const ranked = sweep.trials.map((trial) => trial.value).filter((value) => value != null).sort((a, b) => (sweep.direction === "higher" ? b - a : a - b));
  const limit = sweep.direction == null ? null : ranked[Math.max(0, Math.ceil(ranked.length / 5) - 1)];
  const isGood = (value) => limit != null && value != null && (sweep.direction === "higher" ? value >= limit : value <= limit);
  const picture = drawn("svg", { viewBox: `0 0 ${wide} ${high}`, tabindex: "0", role: "img", "aria-label": `Settings of ${sweep.trials.length} trials and their ${sweep.metric || "value"}. Arrow keys go from trial to trial.` });
  const items = sweep.trials.map((trial, i) => {
    const points = axes.map((axis, a) => (axis.values[i] == null ? null : [xOf(a), axis.at(axis.values[i])])).filter(Boolean);
    const classes = ["line", isGood(trial.value) ? "good" : "", trial.value == null || trial.state === "pruned" ? "lost" : ""].filter(Boolean).join(" ");
    const line = drawn("path", { class: classes, d: points.map(([x, y], k) => `${k ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("") });
    return { trial, points, line, x: points.at(-1)?.[0], y: points.at(-1)?.[1] };
  }).filter((item) => item.points.length > 1);
  picture.append(...items.filter((item) => !item.line.classList.contains("good")).map((item) => item.line), ...items.filter((item) => item.line.classList.contains("good")).map((item) => item.line));
  axes.forEach((axis, a) => {
    picture.append(drawn("line", { class: "grid", x1: xOf(a), x2: xOf(a), y1: top, y2: high - bottom }),
      drawn("text", { class: "strong", x: xOf(a), y: 20, "text-anchor": "middle" }, axis.name.length > 22 ? `…${axis.name.slice(-21)}` : axis.name),
      drawn("text", { x: xOf(a), y: high - 12, "text-anchor": "middle" }, axis.log ? "log scale" : ""),
      ...axis.ticks.map(([y, label]) => drawn("text", { x: xOf(a) + 7, y: y + 4 }, label)));
  });
  holder.append(picture);
  let chosen = null;
  const distance = (item, x, y) => Math.min(...item.points.slice(1).map((end, k) => {
    const start = item.points[k];
    const share = Math.min(1, Math.max(0, (x - start[0]) / (end[0] - start[0] || 1)));
    return Math.hypot(start[0] + share * (end[0] - start[0]) - x, start[1] + share * (end[1] - start[1]) - y);
  }));
  pointing(holder, picture, items, (x, y) => items.reduce((best, item) => (distance(item, x, y) < distance(best, x, y) ? item : best)), (item) => {
    chosen?.line.classList.remove("chosen");
    chosen = item ?? null;
    item?.line.classList.add("chosen");
    if (item == null) return null;
    const { trial } = item;
    return [`trial ${trial.number}: ${trial.value == null ? trial.state : brief(trial.value)}`, ...trial.overrides, ...(trial.state === "finished" ? [] : [trial.state])];
  });
  place.append(make("p", { class: "hint" }, `${limit == null ? "" : "In color: the best fifth. "}Dashed: pruned, or without a value.`));
}
