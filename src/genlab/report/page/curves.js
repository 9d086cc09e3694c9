// Curves over what training cost. uPlot draws those that are shown; all others lie behind them in gray.

const AXIS_NAMES = [["examples", "examples"], ["flops", "FLOPs"], ["seconds", "seconds"]];
const cached = new Map();

function spent(run, axis, examples) { // what had been spent by then: straight pieces between what was recorded
  const [counted, ...amounts] = data.curves[run].spent;
  if (axis === "examples") return examples;
  const amount = amounts[axis === "flops" ? 0 : 1];
  if (counted == null || counted.length === 0) return NaN;
  const high = counted.findIndex((known) => known >= examples);
  if (high < 0) return amount.at(-1);
  if (high === 0) return amount[0];
  return amount[high - 1] + ((examples - counted[high - 1]) / (counted[high] - counted[high - 1])) * (amount[high] - amount[high - 1]);
}

function curve(run, metric, axis) { // [xs, ys] of a run, or null
  const key = `${run} ${metric} ${axis}`;
  if (!cached.has(key)) {
    const points = data.curves[run].of[metric];
    cached.set(key, points && [points[0].map((examples) => spent(run, axis, examples)), points[1]]);
  }
  return cached.get(key) ?? null;
}

function at([xs, ys], x) { // its height at x, between its ends
  if (x < xs[0] || x > xs.at(-1)) return null;
  let [low, high] = [0, xs.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  const width = xs[high] - xs[low];
  return width === 0 ? ys[low] : ys[low] + ((x - xs[low]) / width) * (ys[high] - ys[low]);
}

function meanOf(curves) { // of seeds, where all of them have been; with the lowest and the highest of them
  const [from, to] = [Math.max(...curves.map((c) => c[0][0])), Math.min(...curves.map((c) => c[0].at(-1)))];
  const all = [...new Set(curves.flatMap((c) => c[0]))].filter((x) => x >= from && x <= to).sort((a, b) => a - b);
  const xs = all.filter((_, i) => i % Math.ceil(all.length / 400) === 0 || i === all.length - 1);
  const heights = xs.map((x) => curves.map((c) => at(c, x)));
  return [xs, heights.map((h) => h.reduce((sum, y) => sum + y, 0) / h.length), heights.map((h) => Math.min(...h)), heights.map((h) => Math.max(...h))];
}

function firstMetric() { // that of the column that the table is sorted by, or the first
  const column = data.columns.find((c) => c.key === data.sorted_by);
  const names = column ? [`val/${column.key}`, `val/${column.name}_`] : [];
  const found = data.metrics.findIndex((name) => names.some((own) => name.startsWith(own)));
  return Math.max(0, found);
}

function renderCurves(section) {
  const own = { metric: firstMetric(), axis: "examples", logX: false, logY: false, mean: true, others: rows.length > 1 };
  const severalSeeds = rows.some((row) => row.runs.length > 1);
  const holder = make("div", { class: "plot", tabindex: "0", role: "group", "aria-label": "Curves. Arrow keys move along them." });
  const legend = make("ul", { class: "legend" });
  const said = make("output", { class: "unseen", "aria-live": "polite" });
  const tip = make("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  const where = make("p", { class: "hint" });
  let plot = null;
  let lines = []; // {row, name, slot, xs, ys, low, high}
  let behind = [];

  const options = data.metrics.map((name, place) => [place, name.replace(/^(val|train|monitor)\//, ""),
    { val: "held-out data and samples", train: "training", monitor: "monitors" }[name.split("/")[0]]]);
  const logY = tick("log scale", false, (on) => { own.logY = on; draw(); });
  const controls = make("div", { class: "controls" },
    select("metric", options, own.metric, (value) => { own.metric = Number(value); guess(); draw(); }),
    choice("over", AXIS_NAMES, own.axis, (value) => { own.axis = value; draw(); }),
    logY.label, tick("log cost", false, (on) => { own.logX = on; draw(); }).label,
    severalSeeds ? choice("seeds", [["mean", "mean"], ["each", "each"]], "mean", (value) => { own.mean = value === "mean"; draw(); }) : null,
    rows.length > FIRST_SHOWN ? tick("others in gray", true, (on) => { own.others = on; draw(); }).label : null);
  section.append(controls, holder, legend, where, said);

  function guess() { // a log scale where values of several sizes would lie on each other
    const values = rows.flatMap((row) => row.runs.flatMap((run) => curve(run, own.metric, "examples")?.[1] ?? []));
    const [low, high] = extent([values], false, 0);
    own.logY = low > 0 && high / low > 20;
    logY.box.checked = own.logY;
  }

  function collect() {
    const fits = (c) => c && [0, 1].every((i) => c[i].length) && keepPositive(c);
    const keepPositive = ([xs, ys]) => {
      const kept = xs.map((x, i) => i).filter((i) => Number.isFinite(xs[i]) && (!own.logX || xs[i] > 0) && (!own.logY || ys[i] > 0));
      return kept.length ? [kept.map((i) => xs[i]), kept.map((i) => ys[i])] : null;
    };
    const of = (run) => fits(curve(run, own.metric, own.axis));
    lines = [];
    for (const row of shownRows()) {
      const seeds = row.runs.map((run) => [run, of(run)]).filter(([, c]) => c);
      const slot = shown.get(row.place);
      if (own.mean && seeds.length > 1) {
        const [xs, ys, low, high] = meanOf(seeds.map(([, c]) => c));
        if (xs.length) lines.push({ name: row.name, note: `${seeds.length} seeds`, slot, xs, ys, low, high });
      } else {
        for (const [run, c] of seeds) {
          const note = row.runs.length > 1 ? `seed ${data.runs[run].seed}` : "";
          lines.push({ name: row.name, note, slot, xs: c[0], ys: c[1] });
        }
      }
    }
    const taken = new Set(shownRows().flatMap((row) => row.runs));
    behind = own.others ? data.runs.map((_, run) => (taken.has(run) ? null : of(run))).filter(Boolean) : [];
  }

  function draw() {
    collect();
    plot?.destroy();
    plot = null;
    holder.querySelector(".empty")?.remove();
    const all = [...lines.map((line) => [line.xs, line.ys]), ...behind];
    if (all.length === 0) {
      holder.append(make("p", { class: "empty" }, rows.length && !shown.size ? "Tick rows of the table to see their curves." : "None of the rows that are shown logged this."));
      legend.replaceChildren();
      where.textContent = "";
      return;
    }
    const series = lines.map((line) => ({
      label: line.name, stroke: () => color(colorName(line.slot)), width: 1.8, dash: dash(line.slot), spanGaps: true,
      points: { show: line.xs.length < 12, size: 6, fill: () => color("--raised") } }));
    const joined = lines.length ? uPlot.join(lines.map((line) => [line.xs, line.ys])) : [all[0][0]];
    const xRange = extent(all.map(([xs]) => xs), own.logX, 0);
    const yRange = extent([...all.map(([, ys]) => ys), ...lines.flatMap((line) => (line.low ? [line.low, line.high] : []))], own.logY, 0.04);
    const axis = (name, logarithmic) => ({
      stroke: () => color("--muted"), font: "12px system-ui, sans-serif", grid: { stroke: () => color("--line"), width: 1, ...(logarithmic ? { filter: sparse } : {}) }, ticks: { show: false },
      values: (_, marks) => marks.map((mark) => (mark == null ? "" : brief(mark))), label: name, labelFont: "12px system-ui, sans-serif", labelSize: 18, labelGap: 2, size: name ? 34 : 58, gap: 6,
      space: name ? 64 : 36, ...(logarithmic ? { filter: sparse } : {}) });
    plot = new uPlot({
      width: width(), height: height(), legend: { show: false }, series: [{}, ...series],
      scales: { x: { time: false, distr: own.logX ? 3 : 1, range: (_, low, high) => (zoomed(plot, low, high, joined[0]) ? [low, high] : xRange) }, y: { distr: own.logY ? 3 : 1, range: () => yRange } },
      axes: [axis({ examples: "examples", flops: "training FLOP", seconds: "seconds of training" }[own.axis], own.logX), axis(null, own.logY)],
      cursor: { y: false, focus: { prox: 1e4 }, dataIdx: nearestNumber, points: { size: 8, width: 2 }, drag: { x: true, y: false } },
      focus: { alpha: 0.35 },
      hooks: { drawAxes: [drawBehind], setCursor: [follow], setSeries: [follow] },
    }, joined, holder);
    plot.root.append(tip);
    plot.over.addEventListener("mouseleave", () => { tip.hidden = true; values(null); });
    values(null);
    const alone = lines.length ? "" : " Tick rows of the table to see them in color.";
    where.textContent = `${behind.length ? `In gray: ${behind.length} other ${behind.length === 1 ? "run" : "runs"}.${alone} ` : ""}Drag to zoom in, double click to zoom out.${lines.some((l) => l.low) ? " Means and bands (from the lowest seed to the highest) are where all seeds have been." : ""}`;
  }

  const zoomed = (u, low, high, xs) => u != null && low != null && (low > xs[0] || high < xs.at(-1));
  const width = () => Math.max(240, holder.clientWidth - 16);
  const height = () => Math.round(Math.min(440, Math.max(260, width() * 0.42)));

  function extent(lists, logarithmic, pad) {
    let [low, high] = [Infinity, -Infinity];
    for (const list of lists) for (const value of list) { if (value < low) low = value; if (value > high) high = value; }
    if (logarithmic) return [low / (high / low) ** pad / (low === high ? 2 : 1), high * (high / low) ** pad * (low === high ? 2 : 1)];
    const more = (high - low) * pad || (pad && (Math.abs(high) || 1) * 0.1);
    return low === high && !pad ? [low - 0.5, high + 0.5] : [low - more, high + more];
  }

  function sparse(u, marks) { // on a log scale: powers of ten, and where there are few of them 2 and 5 times that
    const powers = marks.filter((mark) => mark > 0 && Number.isInteger(Number(Math.log10(mark).toFixed(9)))).length;
    return marks.map((mark) => {
      const lead = Number((mark / 10 ** Math.floor(Math.log10(mark) + 1e-9)).toFixed(6));
      return lead === 1 || (powers < 4 && (lead === 2 || lead === 5)) || powers === 0 ? mark : null;
    });
  }

  function nearestNumber(u, place, index) { // curves have points of their own: the nearest one of this
    if (place === 0) return index;
    const ys = u.data[place];
    if (ys[index] != null) return index;
    let [left, right] = [index, index];
    while (left >= 0 && ys[left] == null) left -= 1;
    while (right < ys.length && ys[right] == null) right += 1;
    if (left < 0) return right < ys.length ? right : null;
    if (right >= ys.length) return left;
    const x = u.data[0];
    return x[index] - x[left] <= x[right] - x[index] ? left : right;
  }

  function drawBehind(u) {
    const draw = u.ctx;
    draw.save();
    draw.beginPath();
    draw.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
    draw.clip();
    const trace = (xs, ys) => xs.forEach((x, i) => draw[i ? "lineTo" : "moveTo"](u.valToPos(x, "x", true), u.valToPos(ys[i], "y", true)));
    draw.lineWidth = devicePixelRatio;
    draw.strokeStyle = color("--faint");
    draw.globalAlpha = behind.length > 40 ? 0.6 : 0.9;
    for (const [xs, ys] of behind) {
      draw.beginPath();
      trace(xs, ys);
      draw.stroke();
    }
    draw.globalAlpha = 0.16;
    for (const line of lines.filter((own_) => own_.low)) {
      draw.fillStyle = color(colorName(line.slot));
      draw.beginPath();
      trace([...line.xs, ...[...line.xs].reverse()], [...line.low, ...[...line.high].reverse()].map((y) => (own.logY ? Math.max(y, 1e-300) : y)));
      draw.fill();
    }
    draw.restore();
  }

  function follow(u) {
    const { left, top, idx } = u.cursor;
    if (left == null || left < 0 || idx == null) { tip.hidden = true; return; }
    const indices = lines.map((_, i) => nearestNumber(u, i + 1, idx));
    values(indices);
    let near = -1;
    let away = Infinity;
    lines.forEach((_, i) => {
      if (indices[i] == null) return;
      const distance = Math.abs(u.valToPos(u.data[i + 1][indices[i]], "y") - (top < 0 ? 0 : top));
      if (distance < away) [near, away] = [i, distance];
    });
    if (near < 0) { tip.hidden = true; return; }
    const line = lines[near];
    const [x, y] = [u.data[0][indices[near]], u.data[near + 1][indices[near]]];
    tip.hidden = false;
    tip.replaceChildren(make("b", {}, bdi(line.name)), `${line.note ? `${line.note}: ` : ""}${brief(y)} at ${spentText(own.axis, x)}`);
    const over = u.over;
    const beside = over.offsetLeft + u.valToPos(x, "x") + 14;
    const turned = beside + tip.offsetWidth > u.width ? over.offsetLeft + u.valToPos(x, "x") - tip.offsetWidth - 14 : beside;
    tip.style.transform = `translate(${Math.max(0, turned)}px, ${Math.max(0, over.offsetTop + u.valToPos(y, "y") - tip.offsetHeight - 8)}px)`;
  }

  function values(indices) { // in the legend: where the pointer is, or the last
    legend.replaceChildren(...lines.map((line, i) => {
      const place = indices == null ? null : indices[i];
      const y = place == null ? line.ys.at(-1) : plot.data[i + 1][place];
      return make("li", {}, swatch(line.slot), make("span", {}, bdi(line.name), line.note ? make("small", {}, ` ${line.note}`) : null),
        make("span", { class: "value" }, brief(y)));
    }));
  }

  let index = -1;
  holder.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step == null || plot == null || lines.length === 0) return;
    event.preventDefault();
    const xs = plot.data[0];
    const stride = Math.max(1, Math.round(xs.length / 40)) * step;
    index = Math.min(xs.length - 1, Math.max(0, (index < 0 ? (step > 0 ? -stride : xs.length) : index) + stride));
    plot.setCursor({ left: plot.valToPos(xs[index], "x"), top: 0 });
    said.textContent = `at ${spentText(own.axis, xs[index])}: ${lines.map((line, i) => {
      const place = nearestNumber(plot, i + 1, index);
      return place == null ? "" : `${line.name} ${line.note} ${brief(plot.data[i + 1][place])}`;
    }).join("; ")}`;
  });
  holder.addEventListener("blur", () => { tip.hidden = true; values(null); });
  new ResizeObserver(() => plot && Math.abs(plot.width - width()) > 1 && plot.setSize({ width: width(), height: height() })).observe(holder);
  whenShownChanges(draw);
  whenThemeChanges(() => plot?.redraw(false));
  guess();
  draw();
}
