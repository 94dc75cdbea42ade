// Lines over time, with a readout under the pointer and keys; bars as a table, so that everybody can read them.

const CHART_TOP = 12,
  CHART_BOTTOM = 34;

const SERIES = {
  "Working set": 1,
  RSS: 2,
  Watched: 3,
  Swap: 5,
  Matched: 3,
  Tried: 2,
  Applied: 4,
  Refused: 1,
};

const coloured = (lines) => lines.map((line) => ({ ...line, colour: `var(--series-${SERIES[line.name]})` }));

// series: [{ name, colour, time_s, values }], each with its own times; a step between two values is a straight line.
class LineChart {
  constructor(box, { series, height = 210, events = [], label }) {
    Object.assign(this, { box, series, height, events, label });
    this.keys = element("div", { class: "keys", role: "group", "aria-label": "Lines that are shown" });
    this.holder = element("div", { class: "chart" });
    this.tooltip = element("div", { class: "tooltip", hidden: "" });
    box.replaceChildren(this.keys, this.holder);
    for (const one of series) {
      const mark = element("i");
      mark.style.color = one.colour;
      const key = element("button", { type: "button", "aria-pressed": String(!one.isHidden) }, mark, one.name);
      key.addEventListener("click", () => {
        one.isHidden = !one.isHidden;
        key.setAttribute("aria-pressed", String(!one.isHidden));
        this.draw([this.begin_s, this.end_s]);
      });
      this.keys.append(key);
    }
    this.holder.addEventListener("pointermove", (event) =>
      this.point(event.clientX - this.holder.getBoundingClientRect().left),
    );
    this.holder.addEventListener("pointerleave", () => {
      this.tooltip.hidden = true;
      this.mark?.remove();
    });
  }

  draw([begin_s, end_s]) {
    const width = this.holder.clientWidth;
    if (width === 0) return;
    const left = width < 480 ? 64 : 76,
      right = 8;
    Object.assign(this, { begin_s, end_s, left, inner: width - left - right });
    const svg = drawing("svg", {
      viewBox: `0 0 ${width} ${this.height}`,
      width,
      height: this.height,
      role: "img",
      "aria-label": this.label,
    });
    const top = this.top();
    const step = sizeStep(top, 5),
      bottom = this.height - CHART_BOTTOM;
    const unit = sizeUnit(top);
    const yOf = (value) => bottom - (value / top) * (bottom - CHART_TOP);
    for (const value of marks(0, top, step)) {
      svg.append(drawing("line", { class: "grid", x1: left, x2: width - right, y1: yOf(value), y2: yOf(value) }));
      svg.append(
        drawing("text", { x: left - 7, y: yOf(value) + 4, "text-anchor": "end" }, formatSizeIn(value, unit, step)),
      );
    }
    const timeStep = roundStep(end_s - begin_s, this.inner / 84, true);
    for (const time of marks(begin_s, end_s, timeStep)) {
      const x = this.xOf(time),
        isLast = x > width - right - 22;
      svg.append(drawing("line", { class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 4 }));
      svg.append(
        drawing(
          "text",
          { x: isLast ? width - right : x, y: bottom + 18, "text-anchor": isLast ? "end" : "middle" },
          formatMark(time, timeStep),
        ),
      );
    }
    for (const event of this.events) {
      if (event.time_s < begin_s || event.time_s > end_s) continue;
      const x = this.xOf(event.time_s);
      const line = drawing("line", { class: "event", x1: x, x2: x, y1: CHART_TOP, y2: bottom });
      line.append(drawing("title", {}, event.text));
      svg.append(line);
    }
    for (const one of this.shown) {
      const path = drawing("path", { class: "line", d: this.path(one, yOf) });
      path.style.stroke = one.colour;
      svg.append(path);
    }
    this.holder.replaceChildren(svg, this.tooltip);
    this.svg = svg;
  }

  get shown() {
    return this.series.filter((one) => !one.isHidden);
  }

  // A little above the largest, at a full mark.
  top() {
    let most = 1;
    for (const { values } of this.shown) for (const value of values) if (value > most) most = value;
    const step = sizeStep(most, 5);
    return Math.ceil(most / step - 1e-9) * step;
  }

  xOf(time) {
    return this.left + ((time - this.begin_s) / (this.end_s - this.begin_s)) * this.inner;
  }

  // Where several values fall into one pixel, the least and the most of them: no peak is lost.
  path({ time_s, values }, yOf) {
    const parts = [];
    let pixel = null,
      low = 0,
      high = 0,
      last = 0,
      isOpen = false;
    const flush = () => {
      if (pixel === null) return;
      const x = pixel.toFixed(1);
      parts.push(`${isOpen ? "L" : "M"}${x} ${yOf(low).toFixed(1)}`);
      if (high > low) parts.push(`L${x} ${yOf(high).toFixed(1)}L${x} ${yOf(last).toFixed(1)}`);
      isOpen = true;
      pixel = null;
    };
    for (let index = 0; index < time_s.length; index += 1) {
      const isOutside = (time_s[index + 1] ?? Infinity) < this.begin_s || (time_s[index - 1] ?? -Infinity) > this.end_s;
      if (isOutside) continue;
      const value = values[index];
      if (Number.isNaN(value)) {
        flush();
        isOpen = false;
        continue;
      }
      const x = Math.round(Math.min(Math.max(this.xOf(time_s[index]), this.left), this.left + this.inner) * 2) / 2;
      if (x === pixel) {
        low = Math.min(low, value);
        high = Math.max(high, value);
        last = value;
        continue;
      }
      flush();
      [pixel, low, high, last] = [x, value, value, value];
    }
    flush();
    return parts.join("");
  }

  point(x) {
    if (!this.svg || x < this.left || x > this.left + this.inner) {
      this.tooltip.hidden = true;
      this.mark?.remove();
      return;
    }
    const time = this.begin_s + ((x - this.left) / this.inner) * (this.end_s - this.begin_s);
    const rows = [["Time", formatTime(time)]];
    for (const { name, time_s, values } of this.shown) {
      const index = nearest(time_s, time);
      if (index >= 0 && !Number.isNaN(values[index])) rows.push([name, formatSize(values[index])]);
    }
    this.mark?.remove();
    this.mark = drawing("line", { class: "hover-line", x1: x, x2: x, y1: CHART_TOP, y2: this.height - CHART_BOTTOM });
    this.svg.append(this.mark);
    const list = element("dl");
    facts(list, rows);
    this.tooltip.replaceChildren(list);
    this.tooltip.hidden = false;
    const { offsetWidth: width } = this.tooltip;
    this.tooltip.style.left = `${Math.max(0, x + 14 + width <= this.holder.clientWidth ? x + 14 : x - 14 - width)}px`;
    this.tooltip.style.top = `${CHART_TOP}px`;
  }
}

function nearest(sorted, value) {
  let low = 0,
    high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  if (low === 0) return sorted.length ? 0 : -1;
  if (low === sorted.length) return low - 1;
  return value - sorted[low - 1] <= sorted[low] - value ? low - 1 : low;
}

// rows: [{ label, bytes, kind }]; shares are of all of them.
function barTable({ title, note, rows }) {
  const total = rows.reduce((sum, { bytes }) => sum + bytes, 0);
  const most = Math.max(1, ...rows.map(({ bytes }) => bytes));
  const table = element(
    "table",
    { class: "bars" },
    element("caption", {}, title, note ? element("small", {}, ` ${note}`) : null),
  );
  const body = element("tbody");
  for (const { label, bytes, kind } of rows) {
    const bar = element("i");
    bar.style.width = `${(bytes / most) * 100}%`;
    bar.style.background = `var(--${kind})`;
    body.append(
      element(
        "tr",
        {},
        element("th", { scope: "row" }, label),
        element("td", { class: "bar", "aria-hidden": "true" }, element("div", {}, bar)),
        element("td", { class: "number" }, formatSize(bytes)),
        element("td", { class: "number" }, total > 0 ? formatRate(bytes / total) : "–"),
      ),
    );
  }
  table.append(body);
  return table;
}
