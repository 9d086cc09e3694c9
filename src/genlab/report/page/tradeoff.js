// Quality against cost, a point a row, and the front of those that nothing else beats in both.

const COSTS = ["samples_per_second", "evaluations_per_sample", "nfe", "seconds", "flops", "parameters", "peak_memory_bytes", "examples"];

function renderTradeoff(section) {
  const numbers = (column) => rows.filter((row) => row.cells[column].value != null).length;
  const all = data.columns.map((column, place) => ({ ...column, place })).filter((column) => column.direction && numbers(column.place) > 1);
  const isCost = (column) => !column.quality && COSTS.includes(column.name);
  const costs = all.filter(isCost).sort((a, b) => COSTS.indexOf(a.name) - COSTS.indexOf(b.name));
  const qualities = all.filter((column) => !isCost(column));
  if (costs.length === 0 || qualities.length === 0) {
    section.append(make("p", { class: "hint" }, "No two rows have both a quality and a cost."));
    return;
  }
  const own = { cost: costs[0], quality: qualities.find((column) => column.key === data.sorted_by) ?? qualities[0] };
  const holder = make("div", { class: "plot" });
  const listed = make("p", { class: "hint" });
  const title = (column) => `${column.head}${column.unit ? ` (${column.unit})` : ""}`;
  const pick = (from) => (value) => from.find((column) => String(column.place) === value);
  section.append(make("div", { class: "controls" },
    select("quality", qualities.map((c) => [c.place, title(c)]), own.quality.place, (value) => { own.quality = pick(qualities)(value); draw(); }),
    select("cost", costs.map((c) => [c.place, title(c)]), own.cost.place, (value) => { own.cost = pick(costs)(value); draw(); })), holder, listed);

  function draw() {
    const [wide, high, left, right, top, bottom] = [narrow() ? 420 : 1000, narrow() ? 360 : 440, 64, 24, 20, 52];
    const points = rows.map((row) => ({ row, cost: row.cells[own.cost.place].value, quality: row.cells[own.quality.place].value }))
      .filter((point) => point.cost != null && point.quality != null);
    holder.replaceChildren();
    listed.replaceChildren();
    if (points.length === 0) { listed.append("No row has both."); return; }
    const logs = [spread(points.map((p) => p.cost)), spread(points.map((p) => p.quality))];
    const x = scale(points.map((p) => p.cost), left, wide - right, logs[0]);
    const y = scale(points.map((p) => p.quality), high - bottom, top, logs[1]);
    points.forEach((p) => { p.x = x(p.cost); p.y = y(p.quality); });
    const cheap = (p) => worth(own.cost.place, p.cost);
    const good = (p) => worth(own.quality.place, p.quality);
    points.sort((a, b) => cheap(a) - cheap(b) || good(a) - good(b));
    const front = points.filter((p, i) => points.slice(0, i).every((q) => good(q) > good(p)));

    const path = front.map((p, i) => (i === 0 ? `M${p.x},${p.y}` : `H${p.x}V${p.y}`)).join("");
    const picture = drawn("svg", { viewBox: `0 0 ${wide} ${high}`, tabindex: "0", role: "img", "aria-label":
      `${own.quality.name} against ${own.cost.name}. On the front: ${front.map((p) => p.row.name).join(", ")}. Arrow keys go from point to point.` });
    for (const mark of x.ticks) picture.append(drawn("line", { class: "grid", x1: x(mark), x2: x(mark), y1: top, y2: high - bottom }),
      drawn("text", { x: x(mark), y: high - bottom + 18, "text-anchor": "middle" }, brief(mark)));
    for (const mark of y.ticks) picture.append(drawn("line", { class: "grid", x1: left, x2: wide - right, y1: y(mark), y2: y(mark) }),
      drawn("text", { x: left - 8, y: y(mark) + 4, "text-anchor": "end" }, brief(mark)));
    picture.append(drawn("text", { class: "strong", x: wide - right, y: high - 10, "text-anchor": "end" }, `${axisTitle(own.cost)}${logs[0] ? ", log scale" : ""}`),
      drawn("text", { class: "strong", x: left, y: top - 6 }, `${axisTitle(own.quality)}${logs[1] ? ", log scale" : ""}`), drawn("path", { class: "front", d: path }));
    const dot = (p) => {
      const slot = shown.get(p.row.place);
      const circle = drawn("circle", { cx: p.x, cy: p.y, r: slot == null ? 3.5 : 6, class: slot == null ? "others" : "of-shown" });
      if (slot != null) circle.style.fill = `var(${colorName(slot)})`;
      return (p.circle = circle);
    };
    picture.append(...points.filter((p) => !shown.has(p.row.place)).map(dot), ...points.filter((p) => shown.has(p.row.place)).map(dot));
    picture.append(...labels([...front, ...points.filter((p) => !front.includes(p))].filter((p) => shown.has(p.row.place)), wide - right));
    holder.append(picture);
    let chosen = null;
    pointing(holder, picture, points, (px, py) => points.reduce((best, p) => (Math.hypot(p.x - px, p.y - py) < Math.hypot(best.x - px, best.y - py) ? p : best)), (p) => {
      chosen?.circle.classList.remove("chosen");
      chosen = p ?? null;
      p?.circle.classList.add("chosen");
      return p && [p.row.name, `${own.quality.name} ${p.row.cells[own.quality.place].text}`, `${own.cost.name.replaceAll("_", " ")} ${p.row.cells[own.cost.place].text} ${own.cost.unit}`];
    });
    listed.append(`On the front, from cheap to good: `, ...front.slice(0, 8).flatMap((p, i) => [i ? ", " : "", bdi(p.row.name)]), front.length > 8 ? ` and ${front.length - 8} more` : "", ". The line joins what nothing else beats in both.");
  }

  const ARROWS = { lower: " ↓", higher: " ↑", one: "" };
  function axisTitle(column) { // in plain units, since the marks have prefixes of their own
    if (column.quality || !column.unit) return column.head;
    const unit = column.unit.replace(/^[kMGTPE](?=B$|FLOP$|$)/, "");
    const name = column.head.replace(/ [↓↑→].*/, "");
    return `${name}${unit === "" ? "" : ` ${unit.startsWith("per ") ? unit : `(${unit})`}`}${ARROWS[column.direction]}`;
  }
  whenShownChanges(draw);
  addEventListener("resize", once(draw));
  draw();
}

function labels(points, end) { // names beside points, where they cover nothing
  const taken = points.map((p) => [p.x - 7, p.y - 7, p.x + 7, p.y + 7]);
  const free = (box) => taken.every(([x, y, right, bottom]) => box[2] < x || box[0] > right || box[3] < y || box[1] > bottom);
  return points.map((p) => {
    const name = p.row.name.length > 80 ? `${p.row.name.slice(0, 79)}…` : p.row.name;
    const width = name.length * 7;
    for (const [left, up] of [[p.x + 11, 0], [p.x - 11 - width, 0], [p.x - width / 2, -16], [p.x - width / 2, 16]]) {
      const box = [left, p.y + up - 8, left + width, p.y + up + 8];
      if (left < 64 || box[2] > end || !free(box)) continue;
      taken.push(box);
      return drawn("text", { x: left, y: p.y + up + 4 }, name);
    }
    return null;
  }).filter(Boolean);
}

const narrow = () => document.documentElement.clientWidth < 640;
function once(act) { // when a width crosses the line, not at each pixel
  let before = narrow();
  return () => {
    if (narrow() !== before) act();
    before = narrow();
  };
}
