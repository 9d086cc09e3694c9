// The table of results is in the page already; here it learns to sort, to filter, and to choose what is shown below.

const FIRST_SHOWN = 6;
const CONDITION = /^(.+?)(<=|>=|<|>|=)(-?\d[\d.]*(?:e[+-]?\d+)?)$/i;

function worth(column, value) { // the lower the better
  if (value == null) return Infinity;
  const direction = data.columns[column].direction;
  return direction === "higher" ? -value : direction === "one" ? Math.abs(value - 1) : value;
}

function words(row) { // what a row is found by
  const own = row.runs.flatMap((run) => [data.runs[run].folder, data.runs[run].state,
    ...data.settings.map((setting) => setting.values[run] && `${setting.path}=${setting.values[run]}`)]);
  return [row.name, ...own].filter(Boolean).join(" ").toLowerCase();
}

function matcher(text) { // words that all have to be there, and conditions such as fid<1.5
  const tests = text.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const [, name, sign, number] = CONDITION.exec(word) ?? [];
    const column = data.columns.findIndex((c) => [c.name, c.key, c.head.replace(/ [↓↑→].*/, "")].some((n) => n.toLowerCase() === name));
    if (column < 0) return (row) => row.words.includes(word);
    const compare = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a === b }[sign];
    return (row) => row.cells[column].value != null && compare(row.cells[column].value, Number(number));
  });
  return (row) => tests.every((test) => test(row));
}

function prepareTable() {
  const table = document.getElementById("table");
  const bodies = [...table.querySelectorAll("tbody:not(.baseline)")];
  const lines = new Map([...table.querySelectorAll("tbody tr")].map((line) => [Number(line.dataset.row), line]));
  rows.forEach((row) => (row.words = words(row)));

  for (const row of rows) {
    const who = lines.get(row.place).querySelector(".who");
    row.box = make("input", { type: "checkbox", "aria-label": `show ${row.name}`, on: { change: () => show([[row.place, row.box.checked]]) } });
    row.swatch = swatch(null);
    who.replaceChildren(make("label", {}, row.box, row.swatch, ...who.childNodes));
  }
  whenShownChanges(() => {
    for (const row of rows) {
      row.box.checked = shown.has(row.place);
      row.swatch.style.background = shown.has(row.place) ? `var(${colorName(shown.get(row.place))})` : "";
    }
  });

  const headings = [...table.querySelectorAll("thead th")];
  let sorted = { column: data.columns.findIndex((column) => column.key === data.sorted_by), turned: false };
  if (sorted.column < 0) sorted.column = null; // in the order that they were found
  const marked = () => headings.forEach((heading) => {
    const column = Number(heading.dataset.column);
    const falls = column >= 0 && data.columns[column].direction === "higher";
    if (column === sorted.column) heading.setAttribute("aria-sort", falls === sorted.turned ? "ascending" : "descending");
    else heading.removeAttribute("aria-sort");
    heading.querySelector(".arrow").textContent = column !== sorted.column ? "" : falls === sorted.turned ? " ▲" : " ▼";
  });
  function sort(column) {
    sorted = { column, turned: column === sorted.column && !sorted.turned };
    const sign = sorted.turned ? -1 : 1;
    const place = (row) => (column < 0 ? 0 : worth(column, row.cells[column].value));
    const order = [...rows].sort((a, b) => {
      if (column < 0) return sign * a.name.localeCompare(b.name, "en", { numeric: true });
      const [x, y] = [place(a), place(b)];
      if (x === Infinity || y === Infinity) return x === y ? 0 : x === Infinity ? 1 : -1; // without a number: last
      return sign * (x - y);
    });
    for (const body of bodies) body.append(...order.map((row) => lines.get(row.place)).filter((line) => line.parentNode === body));
    marked();
  }
  for (const heading of headings) {
    const button = make("button", { type: "button", title: "sort", on: { click: () => sort(Number(heading.dataset.column)) } });
    button.append(...heading.childNodes);
    (button.querySelector("bdi") ?? button).append(make("span", { class: "arrow", "aria-hidden": "true" }));
    heading.append(button);
  }
  marked();

  const count = make("output", { "aria-live": "polite" });
  const field = make("input", { type: "search", "aria-label": "filter the table", spellcheck: "false", autocomplete: "off",
    placeholder: "Filter: words, or a limit such as fid<1.5", on: { input: () => filter() } });
  let matching = rows;
  function filter() {
    const matches = matcher(field.value);
    matching = rows.filter(matches);
    const found = new Set(matching);
    rows.forEach((row) => (lines.get(row.place).hidden = !found.has(row)));
    count.textContent = matching.length < rows.length ? `${matching.length} of ${rows.length}` : "";
  }
  const inOrder = () => bodies.flatMap((body) => [...body.children]).map((line) => Number(line.dataset.row)).filter((place) => matching.some((row) => row.place === place));
  const only = (wanted) => show(rows.map((row) => [row.place, wanted.includes(row.place)]));
  if (rows.length > 1) {
    document.getElementById("table-controls").append(field, count,
      make("button", { type: "button", on: { click: () => { only([]); only(inOrder().slice(0, COLORS)); } } }, `Show the first ${Math.min(COLORS, rows.length)}`),
      make("button", { type: "button", class: "quiet", on: { click: () => only([]) } }, "Show none"));
    document.getElementById("signs").prepend(make("p", {}, "The ticked rows are shown below."));
  }
  show(rows.slice(0, FIRST_SHOWN).map((row) => [row.place, true]));
}
