// Puts the page together from what is embedded in it.

const THEMES = { light: "Dark colours", dark: "Light colours" };

class Page {
  constructor(data) {
    this.data = data;
    this.charts = [];
    this.events = data.events.rows;
    this.table = new MappingTable();
    this.map = new HeatMap(new HeatPainter(data.colours), { onView: (span) => this.follow(span) });
    byId("subtitle").textContent = [...data.subtitle, `from ${new Date(data.begin_s * 1000).toLocaleString()}`].join(
      " · ",
    );
    this.drawBelief();
    facts(byId("conditions"), data.conditions);
    facts(byId("facts"), data.facts);
    byId("schemes-panel").hidden = data.schemes.length === 0;
    byId("events-panel").hidden = this.events.length === 0;
    drawEvents(byId("events"), data.events, data.begin_s);
    this.schemeCharts = drawSchemes(byId("schemes"), data.schemes, this.events);
    this.chooseTarget();
    this.open(data.parts[0]);
  }

  drawBelief() {
    const { doubts } = this.data,
      box = byId("belief");
    box.classList.add(doubts.length ? "doubt" : "good");
    if (doubts.length === 0) {
      box.textContent = this.data.belief;
      return;
    }
    const list = element("ul", {}, ...doubts.map((doubt) => element("li", {}, doubt)));
    box.replaceChildren(element("strong", {}, this.data.belief), list);
  }

  chooseTarget() {
    const { parts } = this.data,
      select = byId("target");
    byId("target-choice").hidden = parts.length < 2;
    parts.forEach((part, index) => select.append(element("option", { value: String(index) }, part.name)));
    select.addEventListener("change", () => this.open(parts[Number(select.value)]));
  }

  open(part) {
    byId("tiles").replaceChildren(
      ...part.tiles.map(([name, value, note]) =>
        element("div", {}, element("dt", {}, name), element("dd", {}, value, note ? element("small", {}, note) : null)),
      ),
    );
    this.charts = [...this.schemeCharts, this.openWorkingSet(part.working_set)];
    byId("distribution-note").textContent = part.distribution_note;
    byId("distributions").replaceChildren(
      ...part.distributions.map(barTable),
      simpleTable("Idle time of all bytes", ["Share of the bytes", "idle for at most"], part.idle, ""),
    );
    this.table.open(this.data.mappings, part.target);
    const heats = part.heats.map((index) => this.data.heats[index]);
    const isDrawn = heats.length > 0;
    byId("heat").hidden = !isDrawn;
    byId("legend").hidden = !isDrawn;
    document.querySelector(".toolbar").hidden = !isDrawn;
    byId("heat-help").hidden = !isDrawn;
    if (!isDrawn) {
      byId("heat-note").textContent = "Nothing was watched.";
      this.follow([0, this.data.end_s - this.data.begin_s]);
      return;
    }
    const heat = new Heat(heats);
    heat.epoch_s = this.data.begin_s;
    this.map.open(heat, this.events);
  }

  openWorkingSet(set) {
    byId("set-note").textContent = set.note;
    byId("set-table").replaceChildren(simpleTable("Percentiles over time", set.percentile_titles, set.percentiles, ""));
    return new LineChart(byId("set-chart"), { series: coloured(set.lines), events: this.events, label: set.label });
  }

  follow(span) {
    this.span = span;
    for (const chart of this.charts) chart.draw(span);
  }

  redraw() {
    if (byId("heat").hidden) this.follow(this.span);
    else this.map.draw();
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = THEMES[theme];
}

function followTheme() {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const ofSystem = () => (system.matches ? "dark" : "light");
  let isChosen = false;
  setTheme(ofSystem());
  system.addEventListener("change", () => {
    if (!isChosen) setTheme(ofSystem());
  });
  byId("theme").addEventListener("click", () => {
    isChosen = true;
    setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  });
}

// Paper is light, and as wide as it is: all is drawn again for it, and again afterwards.
function followPrinter(page) {
  let before = "light";
  window.addEventListener("beforeprint", () => {
    before = document.documentElement.dataset.theme;
    setTheme("light");
    document.documentElement.classList.add("printing");
    page.redraw();
  });
  window.addEventListener("afterprint", () => {
    document.documentElement.classList.remove("printing");
    setTheme(before);
    page.redraw();
  });
}

async function start() {
  followTheme();
  if (typeof DecompressionStream === "undefined")
    throw new Error("this browser cannot unpack it; use one from 2023 or later");
  const page = new Page(await unpackAll(JSON.parse(byId("data").textContent)));
  followPrinter(page);
  let width = window.innerWidth;
  new ResizeObserver(() => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    page.redraw();
  }).observe(document.body);
  document.documentElement.dataset.state = "ready";
}

start().catch((error) => {
  byId("problem").hidden = false;
  byId("problem").textContent = `The page could not be drawn: ${error.message}`;
  document.documentElement.dataset.state = "failed";
  throw error;
});
