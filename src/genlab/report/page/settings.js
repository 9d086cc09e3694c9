// Settings of the shown rows side by side; what most of them have is plain, what is unlike it stands out.

const MOST_BESIDE = 12;

function renderSettings(section) {
  const table = make("table", {});
  const note = make("p", { class: "hint" });
  section.append(make("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Table of settings" }, table), note);

  function draw() {
    const beside = shownRows().slice(0, MOST_BESIDE);
    const values = (setting, row) => [...new Set(row.runs.map((run) => setting.values[run]))].join(", ");
    const head = make("tr", {}, make("th", { scope: "col" }, "setting"), ...beside.map((row) => make("th", { scope: "col", class: "heading" }, swatch(shown.get(row.place)), " ", bdi(row.name))));
    const lines = data.settings.map((setting) => {
      const own = beside.map((row) => values(setting, row));
      if (beside.length > 0 && new Set(own).size === 1 && own[0] === "") return null;
      const count = new Map();
      for (const value of setting.values) if (value !== "") count.set(value, (count.get(value) ?? 0) + 1);
      const [[usual, most], second] = [...count].sort((a, b) => b[1] - a[1]);
      const apart = most > (second?.[1] ?? 0); // what no value is more common than others of: nothing stands out
      return make("tr", {}, make("th", { scope: "row" }, make("code", {}, bdi(setting.path))),
        ...own.map((value, i) => {
          const unlike = apart && value !== "" && beside[i].runs.every((run) => setting.values[run] !== usual);
          return make("td", { class: value === "" ? "absent" : unlike ? "apart" : null }, value === "" ? "–" : bdi(value));
        }));
    });
    table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...lines));
    note.textContent = `Colored: unlike most of the runs that have this setting.${shown.size > MOST_BESIDE ? ` The first ${MOST_BESIDE} of the ${shown.size} rows that are shown.` : ""} What all share is in each run's config.yaml.`;
  }
  whenShownChanges(draw);
  draw();
}
