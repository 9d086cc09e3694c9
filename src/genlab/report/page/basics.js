// What all parts of the page use. Text from runs reaches the page as text nodes and attributes alone, never as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
let unpacked = null;
const frames = () => (unpacked ??= JSON.parse(document.getElementById("pictures").textContent)); // large: on demand

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  assign(element, attributes);
  element.append(...children.filter((child) => child != null));
  return element;
}

function drawn(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  assign(element, attributes);
  element.append(...children.filter((child) => child != null));
  return element;
}

function assign(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
}

const bdi = (text) => make("bdi", {}, text);

// --- Numbers

const PREFIXES = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

function brief(number) {
  if (number == null || !Number.isFinite(number)) return "–";
  const size = Math.abs(number);
  for (const [scale, prefix] of PREFIXES) if (size >= scale * 0.99995) return `${trimmed(number / scale)} ${prefix}`;
  return size !== 0 && size < 1e-4 ? number.toExponential(2).replace(/\.?0+e/, "e") : trimmed(number);
}

function trimmed(number) {
  const text = number.toPrecision(Math.abs(number) >= 1000 ? 4 : 3 + (Math.abs(number) < 10));
  return text.includes("e") || !text.includes(".") ? text : text.replace(/\.?0+$/, "");
}

const UNITS = { examples: "examples", flops: "FLOP", seconds: "s" };
const spentText = (axis, amount) => `${brief(amount)}${/[A-Za-z]$/.test(brief(amount)) && axis !== "examples" ? "" : " "}${UNITS[axis]}`;

// --- Which rows are shown in curves and samples, each in a color of its own

const COLORS = 8;
const shown = new Map(); // row -> slot
const followers = [];
const whenShownChanges = (act) => followers.push(act);
const rows = data.rows.map((row, place) => ({ ...row, place })).filter((row) => row.kind !== "baseline");

function show(changes) {
  for (const [place, wanted] of changes) {
    if (!wanted) shown.delete(place);
    else if (!shown.has(place)) {
      const taken = new Set(shown.values());
      let slot = 0;
      while (taken.has(slot)) slot += 1;
      shown.set(place, slot);
    }
  }
  followers.forEach((act) => act());
}

const byPlace = new Map(rows.map((row) => [row.place, row]));
const shownRows = () => [...shown].sort((a, b) => a[1] - b[1]).map(([place]) => byPlace.get(place));
const colorName = (slot) => `--run-${(slot % COLORS) + 1}`;
const dash = (slot) => [[], [7, 4], [2, 3]][Math.floor(slot / COLORS) % 3];

function swatch(slot) {
  const element = make("span", { class: "swatch", "aria-hidden": "true" });
  if (slot != null) element.style.background = `var(${colorName(slot)})`;
  return element;
}

const probe = make("span", { hidden: true });
document.body.append(probe);
function color(name) { // what a canvas can draw with
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

// --- Light or dark: as the machine has it, or as chosen here

const themeFollowers = [];
const whenThemeChanges = (act) => themeFollowers.push(act);
const dark = matchMedia("(prefers-color-scheme: dark)");

function prepareTheme() {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const follow = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "light colors" : "dark colors");
    themeFollowers.forEach((act) => act());
  };
  const set = (theme) => { if (theme) root.dataset.theme = theme; else delete root.dataset.theme; follow(); };
  button.hidden = false;
  button.addEventListener("click", () => set(isDark() ? "light" : "dark"));
  dark.addEventListener("change", follow);
  let before;
  addEventListener("beforeprint", () => { before = root.dataset.theme; set("light"); });
  addEventListener("afterprint", () => set(before));
  follow();
}

// --- Parts of the page

function choice(legend, options, chosen, act) { // exactly one of a few
  const name = `choice-${(choice.count = (choice.count ?? 0) + 1)}`;
  const labels = options.map(([value, text]) => make("label", {},
    make("input", { type: "radio", name, value, checked: value === chosen, on: { change: () => act(value) } }), text));
  return make("fieldset", { class: "choice" }, make("legend", {}, legend), make("span", { class: "segments" }, ...labels));
}

function tick(text, checked, act) {
  const box = make("input", { type: "checkbox", checked, on: { change: () => act(box.checked) } });
  const label = make("label", {}, box, text);
  return { label, box };
}

function select(text, options, chosen, act) {
  const list = make("select", { on: { change: () => act(list.value) } });
  let group = null;
  for (const [value, name, heading] of options) {
    if (heading && group?.label !== heading) list.append((group = make("optgroup", { label: heading })));
    (heading ? group : list).append(make("option", { value, selected: String(value) === String(chosen) }, name));
  }
  return make("label", {}, text, list);
}

const renderers = new Map(); // of sections that nobody has scrolled to yet
function lazily(id, render) {
  const section = document.getElementById(id);
  if (section == null) return;
  renderers.set(section, render);
  watcher.observe(section);
}
function render(section) {
  const act = renderers.get(section);
  renderers.delete(section);
  watcher.unobserve(section);
  act?.(section);
}
const watcher = new IntersectionObserver(
  (entries) => entries.forEach((entry) => entry.isIntersecting && render(entry.target)), { rootMargin: "300px" });
const PAPER = 960; // pixels across, of the narrower kind
addEventListener("beforeprint", () => {
  [...renderers.keys()].forEach(render);
  for (const table of document.querySelectorAll(".scroll table")) table.style.zoom = Math.min(0.7, PAPER / table.scrollWidth);
});
addEventListener("afterprint", () => document.querySelectorAll(".scroll table").forEach((table) => (table.style.zoom = "")));
