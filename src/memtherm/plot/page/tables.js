// Mappings, schemes, events: what is read rather than looked at.

const MAPPING_COLUMNS = [
  { key: "name", title: "Mapping", isText: true },
  { key: "target_name", title: "Target", isText: true },
  { key: "size_bytes", title: "Size", format: formatSize },
  { key: "hot_bytes", title: "Hot", format: formatSize },
  { key: "warm_bytes", title: "Warm", format: formatSize },
  { key: "cold_bytes", title: "Cold", format: formatSize },
  { key: "access_rate", title: "Access rate", format: formatRate },
  { key: "idle_s", title: "Idle for", format: formatTime },
];

class MappingTable {
  constructor() {
    this.order = { key: "hot_bytes", down: true };
    this.box = byId("mappings");
    byId("mappings-filter").addEventListener("input", () => this.draw());
  }

  open(mappings, target) {
    this.rows = mappings.rows.filter((row) => target === null || row.target === target);
    this.hasTargets = new Set(this.rows.map((row) => row.target_name)).size > 1;
    byId("mappings-note").textContent = mappings.note;
    this.draw();
  }

  draw() {
    const wanted = byId("mappings-filter").value.toLowerCase();
    const columns = MAPPING_COLUMNS.filter(({ key }) => key !== "target_name" || this.hasTargets);
    const { key, down } = this.order;
    const rows = this.rows.filter((row) => `${row.name} ${row.path} ${row.target_name}`.toLowerCase().includes(wanted));
    const compare = (a, b) => (typeof a[key] === "string" ? a[key].localeCompare(b[key]) : a[key] - b[key]);
    rows.sort((a, b) => (down ? compare(b, a) : compare(a, b)));
    const head = element(
      "tr",
      {},
      ...columns.map((column) => this.head(column)),
      element("th", { scope: "col" }, "Share"),
    );
    const body = element("tbody", {}, ...rows.map((row) => this.row(row, columns)));
    if (rows.length === 0)
      body.append(
        element(
          "tr",
          {},
          element(
            "td",
            { colspan: String(columns.length + 1) },
            wanted ? "No mapping has this in its name." : "Nothing was watched.",
          ),
        ),
      );
    this.box.replaceChildren(element("table", {}, element("thead", {}, head), body));
  }

  head({ key, title, isText }) {
    const button = element("button", { type: "button" }, title);
    button.addEventListener("click", () => {
      this.order = { key, down: this.order.key === key ? !this.order.down : !isText };
      this.draw();
      this.box.querySelector(`th[data-key="${key}"] button`).focus();
    });
    const sort = this.order.key !== key ? "none" : this.order.down ? "descending" : "ascending";
    return element("th", { scope: "col", "data-key": key, "aria-sort": sort, class: isText ? "" : "number" }, button);
  }

  row(row, columns) {
    const made = element("tr");
    for (const { key, format } of columns) {
      if (key === "name")
        made.append(
          element(
            "th",
            { scope: "row", title: row.path || null },
            row.name,
            row.path && row.path !== row.name && row.path !== `[${row.name}]`
              ? element("div", { class: "muted" }, shorten(row.path, 64))
              : null,
          ),
        );
      else made.append(element("td", { class: format ? "number" : "" }, format ? format(row[key]) : row[key]));
    }
    const bar = element("div");
    for (const [part, colour] of [
      ["hot_bytes", "--hot"],
      ["warm_bytes", "--warm"],
      ["cold_bytes", "--cold"],
    ]) {
      const piece = element("i");
      piece.style.width = `${(100 * row[part]) / Math.max(1, row.size_bytes)}%`;
      piece.style.background = `var(${colour})`;
      bar.append(piece);
    }
    made.append(element("td", { class: "bar", "aria-hidden": "true", style: null }, bar));
    return made;
  }
}

// Returns the charts, which follow the time that the heat map shows.
function drawSchemes(box, schemes, events) {
  box.replaceChildren();
  return schemes.map((scheme) => {
    const totals = element("dl", { class: "totals" });
    for (const [name, value] of scheme.totals)
      totals.append(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
    const chartBox = element("div"),
      tables = element("div");
    box.append(
      element(
        "article",
        { class: "scheme" },
        element("h3", {}, scheme.name, element("span", { class: "tag" }, scheme.action)),
        totals,
        element("div", { class: "split" }, chartBox, tables),
      ),
    );
    tables.append(simpleTable("Refused, and why", ["Reason", "Bytes"], scheme.refused, "Nothing was refused."));
    if (scheme.states.length) tables.append(simpleTable("What held it back", ["Reason", "Windows"], scheme.states, ""));
    return new LineChart(chartBox, {
      series: coloured(scheme.lines).map((one) => ({
        ...one,
        isHidden: one.name === "Matched" && scheme.is_mostly_matched,
      })),
      height: 170,
      events,
      label: `${scheme.name}: bytes in each window over time`,
    });
  });
}

function simpleTable(caption, titles, rows, empty) {
  const table = element("table", {}, element("caption", {}, caption));
  if (rows.length === 0) {
    table.append(element("tbody", {}, element("tr", {}, element("td", { class: "muted" }, empty))));
    return table;
  }
  const isNumber = (index) => index > 0;
  table.append(
    element(
      "thead",
      {},
      element(
        "tr",
        {},
        ...titles.map((title, index) => element("th", { scope: "col", class: isNumber(index) ? "number" : "" }, title)),
      ),
    ),
    element(
      "tbody",
      {},
      ...rows.map((row) =>
        element(
          "tr",
          {},
          ...row.map((value, index) =>
            isNumber(index) ? element("td", { class: "number" }, value) : element("th", { scope: "row" }, value),
          ),
        ),
      ),
    ),
  );
  return table;
}

function drawEvents(box, { rows, note }, epoch_s) {
  box.replaceChildren(
    element(
      "table",
      {},
      element(
        "tbody",
        {},
        ...rows.map(({ time_s, text }) =>
          element(
            "tr",
            {},
            element("td", { class: "number muted" }, formatTime(time_s)),
            element("td", { class: "muted" }, formatClock(epoch_s + time_s)),
            element("th", { scope: "row" }, text),
          ),
        ),
      ),
    ),
  );
  if (note) box.append(element("p", { class: "muted" }, note));
}
