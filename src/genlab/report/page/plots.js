// Scales and axes of the plots that are drawn as SVG, and what points at them: a pointer, a finger, arrow keys.

function scale(values, from, to, logarithmic) {
  const of = logarithmic ? Math.log10 : (x) => x;
  let [low, high] = [Math.min(...values), Math.max(...values)].map(of);
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const pad = (high - low) * 0.05;
  [low, high] = [low - pad, high + pad];
  const at = (value) => from + ((of(value) - low) / (high - low)) * (to - from);
  at.ticks = ticks(low, high, logarithmic);
  return at;
}

function ticks(low, high, logarithmic) {
  const step = niceStep((high - low) / 5);
  if (!logarithmic || high - low < 1) {
    const [a, b] = logarithmic ? [10 ** low, 10 ** high] : [low, high];
    const width = logarithmic ? niceStep((b - a) / 5) : step;
    return steps(a, b, width).map((value) => Number(value.toPrecision(10)));
  }
  const powers = steps(low, high, Math.max(1, Math.round(step))).map((power) => 10 ** power);
  if (powers.length > 2) return powers;
  const finer = steps(Math.floor(low), high, 1).flatMap((power) => [1, 2, 5].map((lead) => lead * 10 ** power));
  return finer.filter((value) => value >= 10 ** low && value <= 10 ** high).map((value) => Number(value.toPrecision(6)));
}

function niceStep(width) {
  const power = 10 ** Math.floor(Math.log10(width));
  return power * ([1, 2, 5].find((factor) => factor * power >= width) ?? 10);
}

function steps(low, high, width) {
  const found = [];
  for (let i = Math.ceil(low / width); i * width <= high; i += 1) found.push(i * width);
  return found;
}

const spread = (values, factor = 20) => values.length > 0 && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > factor;

// A plot in which one of `items` is pointed at: `nearest(x, y)` finds it, `tell(item)` marks it and says what it is.
function pointing(holder, picture, items, nearest, tell) {
  const tip = make("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  const said = make("output", { class: "unseen", "aria-live": "polite" });
  let place = -1;
  const choose = (item, x, y) => {
    const told = tell(item);
    tip.hidden = told == null;
    if (told == null) return;
    tip.replaceChildren(make("b", {}, bdi(told[0])), ...told.slice(1).map((line) => make("div", {}, bdi(line))));
    const box = holder.getBoundingClientRect();
    const left = Math.min(Math.max(4, x + 14), box.width - tip.offsetWidth - 4);
    const above = y - tip.offsetHeight - 10;
    tip.style.transform = `translate(${Math.max(4, left)}px, ${above < 4 ? y + 18 : above}px)`;
    return told;
  };
  const within = (event) => {
    const box = picture.getBoundingClientRect();
    const [width] = picture.getAttribute("viewBox").split(" ").slice(2).map(Number);
    const zoom = box.width / width;
    return [(event.clientX - box.left) / zoom, (event.clientY - box.top) / zoom, zoom];
  };
  picture.addEventListener("pointermove", (event) => {
    const [x, y, zoom] = within(event);
    place = items.indexOf(nearest(x, y));
    choose(items[place], x * zoom, y * zoom);
  });
  picture.addEventListener("pointerleave", () => choose(null));
  picture.addEventListener("blur", () => choose(null));
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step == null || items.length === 0) return;
    event.preventDefault();
    place = (place + step + items.length + (place < 0 && step < 0 ? 1 : 0)) % items.length;
    const zoom = picture.getBoundingClientRect().width / Number(picture.getAttribute("viewBox").split(" ")[2]);
    said.textContent = choose(items[place], (items[place].x ?? 0) * zoom, (items[place].y ?? 0) * zoom)?.join(", ") ?? "";
  });
  holder.append(tip, said);
}
