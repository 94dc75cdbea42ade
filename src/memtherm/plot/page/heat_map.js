// The heat map as people use it: hover, zoom, pan, by pointer, wheel, touch, keys and buttons.

class HeatMap {
  constructor(painter, { onView }) {
    this.painter = painter;
    this.onView = onView;
    this.box = byId("heat");
    this.canvas = byId("heat-canvas");
    this.svg = byId("heat-axes");
    this.tooltip = byId("tooltip");
    this.mode = "rate";
    this.pointers = new Map();
    this.listen();
  }

  open(heat, events) {
    this.heat = heat;
    this.events = events;
    this.view = new HeatView(heat);
    this.cursor = null;
    this.draw();
  }

  // ---- drawing

  draw() {
    if (!this.view) return;
    const width = this.box.clientWidth,
      height = this.box.clientHeight;
    const left = width < 560 ? 92 : 168;
    this.frame = { left, top: 14, right: 6, bottom: 40 };
    this.view.resize(
      Math.max(1, width - left - this.frame.right),
      Math.max(1, height - this.frame.top - this.frame.bottom),
    );
    Object.assign(this.canvas.style, {
      left: `${left}px`,
      top: `${this.frame.top}px`,
      width: `${this.view.width}px`,
      height: `${this.view.height}px`,
      background: "var(--empty)",
    });
    this.painter.paint(this.canvas, this.view, this.mode, Math.min(2, window.devicePixelRatio || 1));
    drawHeatAxes(this.svg, this.view, this.frame, this.events);
    this.overlay = this.svg.appendChild(drawing("g"));
    this.painter.legend(byId("legend"), this.heat, this.mode);
    this.tell();
    this.onView(this.span_s);
  }

  schedule() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  get span_s() {
    return [
      this.heat.first_s + this.view.left * this.heat.step_s,
      this.heat.first_s + this.view.right * this.heat.step_s,
    ];
  }

  tell() {
    const [begin, end] = this.span_s;
    let bytes = 0n;
    for (const band of this.view.bands)
      for (const piece of band.pieces) {
        const [low, high] = visibleAddresses(this.view, piece);
        bytes += high - low;
      }
    const what = this.view.isWhole ? "All" : "Zoomed in";
    const time = `${formatMoment(begin, this.heat.step_s)} to ${formatMoment(end, this.heat.step_s)}`;
    byId("heat-note").textContent = `${what}: ${time}, ${formatSize(bytes)}. ${this.resolution()}`;
    const { view } = this;
    for (const [name, isUseless] of Object.entries({
      reset: view.isWhole,
      out: view.isWhole,
      back: view.past.length === 0,
      left: view.left === 0,
      right: view.right === this.heat.columns,
      down: view.low === 0,
      up: view.high === this.heat.rows,
    }))
      document.querySelector(`[data-do="${name}"]`).disabled = isUseless;
  }

  resolution() {
    const { parts, step_s } = this.heat;
    const bytes = parts.map((part) => part.cell_bytes),
      [least, most] = [Math.min(...bytes), Math.max(...bytes)].map(formatSize);
    const left_out = parts.reduce((sum, part) => sum + part.left_out_bytes, 0);
    const rest = left_out > 0 ? ` ${formatSize(left_out)} in the smallest ranges are left out.` : "";
    return `Finest cell: ${formatTime(step_s)} × ${least === most ? least : `${least} to ${most}`}.${rest}`;
  }

  // ---- what is under the pointer, or under the keys' cursor

  rowsOf(cell) {
    const rows = [];
    const clock = formatClock(this.heat.epoch_s + cell.begin_s);
    rows.push([
      "Address",
      `${formatAddress(cell.start)} – ${formatAddress(cell.end)} (${formatSize(cell.end - cell.start)})`,
    ]);
    const [name = "", ...more] = cell.names;
    const others = more.length > 2 ? [...more.slice(0, 2), `${more.length - 2} more`] : more;
    rows.push([
      "Mapping",
      [cell.piece.target_name, [name || "unknown", ...others].join(", ")].filter(Boolean).join(": "),
    ]);
    if (Number.isNaN(cell.rate)) rows.push(["Access rate", "not watched at that time"]);
    else rows.push(["Access rate", formatRate(cell.rate)], ["Age", `${formatTime(cell.age_s)} at about this rate`]);
    rows.push([
      "Time",
      `${formatMoment(cell.begin_s, this.heat.step_s)} – ${formatMoment(cell.end_s, this.heat.step_s)} (${clock})`,
    ]);
    return rows;
  }

  cellAt(x, y) {
    if (x < 0 || y < 0 || x >= this.view.width || y >= this.view.height || this.view.isFold(y)) return null;
    const row = Math.min(this.heat.rows - 1, Math.floor(this.view.rowAt(y)));
    return this.heat.cell(row, Math.min(this.heat.columns - 1, Math.floor(this.view.columnAt(x))));
  }

  point(x, y) {
    this.overlay.replaceChildren();
    const inside = x >= 0 && y >= 0 && x < this.view.width && y < this.view.height;
    this.tooltip.hidden = !inside;
    if (!inside) return;
    const { left, top } = this.frame;
    this.overlay.append(
      drawing("line", { class: "cross", x1: left + x, x2: left + x, y1: top, y2: top + this.view.height }),
      drawing("line", { class: "cross", x1: left, x2: left + this.view.width, y1: top + y, y2: top + y }),
    );
    const cell = this.cellAt(x, y);
    const list = element("dl");
    facts(list, cell ? this.rowsOf(cell) : [["Left out", this.foldText(y)]]);
    this.tooltip.replaceChildren(list);
    this.placeTooltip(left + x, top + y);
  }

  foldText(y) {
    const above = this.view.bands.findIndex((band) => band.bottom <= y);
    const gap = above > 0 ? this.view.bands[above].pieces[0].gap_bytes : 0n;
    return gap > 0n ? `${formatSize(gap)} that nobody watched` : "the border between two targets";
  }

  placeTooltip(x, y) {
    const { offsetWidth: width, offsetHeight: height } = this.tooltip;
    const right = x + 16 + width <= this.box.clientWidth ? x + 16 : x - 16 - width;
    const below = y + 16 + height <= this.box.clientHeight ? y + 16 : y - 16 - height;
    this.tooltip.style.left = `${Math.max(0, Math.min(right, this.box.clientWidth - width))}px`;
    this.tooltip.style.top = `${below}px`;
  }

  moveCursor(columns, rows) {
    const middle = {
      column: Math.floor((this.view.left + this.view.right) / 2),
      row: Math.floor((this.view.low + this.view.high) / 2),
    };
    const from = this.cursor ?? middle;
    const clamp = (value, first, end) =>
      Math.min(Math.max(value, Math.ceil(first)), Math.max(Math.ceil(first), Math.ceil(end) - 1));
    // A step is a cell, or as many as make a pixel that can be seen.
    const across = Math.max(1, Math.round((4 * (this.view.right - this.view.left)) / this.view.width));
    const up = Math.max(1, Math.round(4 * this.view.rowsPerPx(this.view.yOf(from.row))));
    this.cursor = {
      column: clamp(from.column + columns * across, this.view.left, this.view.right),
      row: clamp(from.row + rows * up, this.view.low, this.view.high),
    };
    const cell = this.heat.cell(this.cursor.row, this.cursor.column);
    this.point(this.view.xOf(this.cursor.column + 0.5), this.view.yOf(this.cursor.row + 0.5));
    byId("readout").textContent = this.rowsOf(cell)
      .map(([name, value]) => `${name}: ${value}`)
      .join(". ");
  }

  // ---- changes of the view

  zoomBy(factor, x = this.view.width / 2, y = this.view.height / 2) {
    this.view.remember();
    this.view.zoom(factor, x, y);
    this.schedule();
  }

  moveBy(across, up) {
    this.view.move(across * (this.view.right - this.view.left), up * (this.view.high - this.view.low));
    this.schedule();
  }

  act(name) {
    const actions = {
      in: () => this.zoomBy(0.5),
      out: () => this.zoomBy(2),
      left: () => this.moveBy(-0.25, 0),
      right: () => this.moveBy(0.25, 0),
      up: () => this.moveBy(0, 0.25),
      down: () => this.moveBy(0, -0.25),
      back: () => this.view.back(),
      reset: () => this.view.reset(),
    };
    actions[name]();
    this.tooltip.hidden = true;
    this.schedule();
  }

  show(mode) {
    this.mode = mode;
    byId("show-rate").setAttribute("aria-pressed", String(mode === "rate"));
    byId("show-age").setAttribute("aria-pressed", String(mode === "age"));
    this.draw();
  }

  // ---- listening

  listen() {
    document
      .querySelectorAll("[data-do]")
      .forEach((button) => button.addEventListener("click", () => this.act(button.dataset.do)));
    byId("show-rate").addEventListener("click", () => this.show("rate"));
    byId("show-age").addEventListener("click", () => this.show("age"));
    this.box.addEventListener("keydown", (event) => this.onKey(event));
    this.box.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.box.addEventListener("pointerdown", (event) => this.onDown(event));
    this.box.addEventListener("pointermove", (event) => this.onMove(event));
    this.box.addEventListener("pointerup", (event) => this.onUp(event));
    this.box.addEventListener("pointercancel", (event) => {
      this.pointers.delete(event.pointerId);
      this.stopDrag();
    });
    this.box.addEventListener("pointerleave", (event) => {
      // A finger leaves when it is lifted; what it asked for is still to be read.
      if (!this.drag && event.pointerType !== "touch") {
        this.tooltip.hidden = true;
        this.overlay?.replaceChildren();
      }
    });
    this.box.addEventListener("dblclick", (event) => {
      const { x, y } = this.place(event);
      this.zoomBy(0.5, x, y);
    });
  }

  place(event) {
    const box = this.box.getBoundingClientRect();
    return { x: event.clientX - box.left - this.frame.left, y: event.clientY - box.top - this.frame.top };
  }

  onKey(event) {
    if (!this.view || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = {
      ArrowLeft: [-1, 0, "left"],
      ArrowRight: [1, 0, "right"],
      ArrowUp: [0, 1, "up"],
      ArrowDown: [0, -1, "down"],
    };
    const keys = {
      "+": "in",
      "=": "in",
      "-": "out",
      "−": "out",
      _: "out",
      0: "reset",
      Home: "reset",
      Escape: "reset",
      Backspace: "back",
    };
    if (event.key in arrows) {
      const [across, up, name] = arrows[event.key];
      if (event.shiftKey) this.moveCursor(across, up);
      else this.act(name);
    } else if (event.key in keys) this.act(keys[event.key]);
    else return;
    event.preventDefault();
  }

  onWheel(event) {
    // A page that is scrolled past must not zoom: only where the map was chosen, or with Ctrl (and so a pinch).
    if (!this.view || !(event.ctrlKey || document.activeElement === this.box)) return;
    event.preventDefault();
    const { x, y } = this.place(event);
    const turned = event.deltaMode === 1 ? 30 * event.deltaY : event.deltaY;
    this.view.zoom(Math.exp(Math.max(-300, Math.min(300, turned)) * 0.002), x, y);
    this.tooltip.hidden = true;
    this.schedule();
  }

  onDown(event) {
    if (!this.view || event.button !== 0) return;
    const place = this.place(event);
    this.pointers.set(event.pointerId, place);
    this.box.setPointerCapture(event.pointerId);
    if (this.pointers.size === 2) {
      this.view.remember();
      this.drag = null;
      return;
    }
    const isMove = event.shiftKey || event.pointerType === "touch";
    this.drag = { kind: isMove ? "move" : "zoom", from: place, last: place, before: this.view.range };
    this.box.classList.toggle("moving", event.shiftKey);
  }

  onMove(event) {
    if (!this.view) return;
    const place = this.place(event);
    if (this.pointers.size === 2) {
      this.pinch(event.pointerId, place);
      return;
    }
    if (!this.drag) {
      this.point(place.x, place.y);
      return;
    }
    if (this.drag.kind === "move") {
      const columns = ((this.drag.last.x - place.x) / this.view.width) * (this.view.right - this.view.left);
      this.view.move(columns, (place.y - this.drag.last.y) * this.view.rowsPerPx(place.y));
      this.drag.last = place;
      this.tooltip.hidden = true;
      this.schedule();
      return;
    }
    this.tooltip.hidden = true;
    const { x, y, width, height } = this.dragged(place);
    this.overlay.replaceChildren(
      drawing("rect", { class: "drag", x: this.frame.left + x, y: this.frame.top + y, width, height }),
    );
  }

  // The rectangle between the start of the drag and here.  Thin ones are meant as a stretch of time, or of addresses.
  dragged(place) {
    const clamp = (value, most) => Math.min(Math.max(value, 0), most);
    let [left, right] = [this.drag.from.x, place.x].map((x) => clamp(x, this.view.width)).sort((a, b) => a - b);
    let [top, bottom] = [this.drag.from.y, place.y].map((y) => clamp(y, this.view.height)).sort((a, b) => a - b);
    if (bottom - top < 10 && right - left >= 10) [top, bottom] = [0, this.view.height];
    else if (right - left < 10 && bottom - top >= 10) [left, right] = [0, this.view.width];
    return { x: left, y: top, width: right - left, height: bottom - top };
  }

  onUp(event) {
    if (!this.view) return;
    const place = this.place(event);
    const wasPinch = this.pointers.size === 2;
    this.pointers.delete(event.pointerId);
    if (wasPinch) {
      this.stopDrag();
      return;
    }
    const { drag } = this;
    if (!drag) return;
    const isTap = Math.hypot(place.x - drag.from.x, place.y - drag.from.y) < 6;
    if (drag.kind === "zoom" && !isTap) {
      const { x, y, width, height } = this.dragged(place);
      this.view.remember();
      this.view.show({
        left: this.view.columnAt(x),
        right: this.view.columnAt(x + width),
        low: this.view.rowAt(y + height),
        high: this.view.rowAt(y),
      });
      this.schedule();
    } else if (drag.kind === "move" && !isTap) this.view.past.push(drag.before);
    this.stopDrag();
    if (isTap) this.point(place.x, place.y);
  }

  stopDrag() {
    this.drag = null;
    this.box.classList.remove("moving");
    this.overlay?.replaceChildren();
  }

  pinch(id, place) {
    const before = [...this.pointers.values()];
    this.pointers.set(id, place);
    const after = [...this.pointers.values()];
    const apart = (pair) => Math.max(20, Math.hypot(pair[0].x - pair[1].x, pair[0].y - pair[1].y));
    this.view.zoom(apart(before) / apart(after), (after[0].x + after[1].x) / 2, (after[0].y + after[1].y) / 2);
    this.tooltip.hidden = true;
    this.schedule();
  }
}
