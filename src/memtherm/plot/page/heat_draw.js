// The heat map's pixels, axes and legend.

const LEAST_LEVEL = 26; // as in colours.py: what was accessed at all never looks like what was not

class HeatPainter {
  constructor(colours) {
    this.maps = { rate: colours.rate, age: colours.age };
  }

  // The colour of a mean rate or age: an index into the map.
  level(mode, heat, value) {
    if (!(value > 0)) return 0;
    if (mode === "rate")
      return Math.round(LEAST_LEVEL + (255 - LEAST_LEVEL) * Math.sqrt(Math.min(1, value / heat.top_rate)));
    return Math.round(
      255 * Math.min(1, Math.log1p(value / heat.least_age_s) / Math.log1p(heat.top_age_s / heat.least_age_s)),
    );
  }

  // Each pixel is the mean of the cells below it, so that nothing is lost between pixels.
  paint(canvas, view, mode, ratio) {
    const { heat } = view;
    const width = Math.max(1, Math.round(view.width * ratio)),
      height = Math.max(1, Math.round(view.height * ratio));
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const words = new Uint32Array(image.data.buffer);
    const palette = this.palette(mode);
    const first = new Int32Array(width),
      end = new Int32Array(width);
    for (let x = 0; x < width; x += 1) {
      first[x] = Math.min(heat.columns - 1, Math.floor(view.columnAt(x / ratio) + 1e-6));
      end[x] = Math.min(heat.columns, Math.max(first[x] + 1, Math.floor(view.columnAt((x + 1) / ratio) + 1e-6)));
    }
    const sum = new Float64Array(heat.columns),
      count = new Int32Array(heat.columns);
    let before = "";
    for (let y = 0; y < height; y += 1) {
      const middle = (y + 0.5) / ratio;
      const band = view.bands.find((one) => middle >= one.top && middle < one.bottom);
      if (!band) {
        this.fold(words, width, y);
        before = "";
        continue;
      }
      const low = band.low + (band.bottom - (y + 1) / ratio) / band.row_px,
        high = low + 1 / ratio / band.row_px;
      const firstRow = Math.max(Math.floor(band.low), Math.floor(low + 1e-6));
      const endRow = Math.min(Math.ceil(band.high), Math.max(firstRow + 1, Math.floor(high + 1e-6)));
      const rows = `${firstRow} ${endRow}`;
      if (rows === before) {
        words.copyWithin(y * width, (y - 1) * width, y * width);
        continue;
      }
      before = rows;
      this.sumRows(heat, mode, firstRow, endRow, first[0], end[width - 1], sum, count);
      for (let x = 0; x < width; x += 1) {
        let total = 0,
          known = 0;
        for (let column = first[x]; column < end[x]; column += 1) {
          total += sum[column];
          known += count[column];
        }
        words[y * width + x] = known === 0 ? 0 : palette[this.level(mode, heat, total / known)];
      }
    }
    context.putImageData(image, 0, 0);
  }

  sumRows(heat, mode, firstRow, endRow, firstColumn, endColumn, sum, count) {
    sum.fill(0, firstColumn, endColumn);
    count.fill(0, firstColumn, endColumn);
    for (let row = firstRow; row < endRow; row += 1) {
      const part = heat.partOf(row);
      const codes = part[mode],
        values = mode === "rate" ? heat.rates : part.ages;
      const at = (row - part.row) * heat.columns;
      for (let column = firstColumn; column < endColumn; column += 1) {
        const code = codes[at + column];
        if (code === NO_DATA) continue;
        sum[column] += values[code];
        count[column] += 1;
      }
    }
  }

  // Where memory is left out: a light hatch in the colour of the lines.
  fold(words, width, y) {
    for (let x = 0; x < width; x += 1) words[y * width + x] = (x + y) % 6 < 2 ? 0x90908880 : 0;
  }

  palette(mode) {
    const bytes = this.maps[mode];
    return Uint32Array.from(
      { length: 256 },
      (_, level) => ((255 << 24) | (bytes[3 * level + 2] << 16) | (bytes[3 * level + 1] << 8) | bytes[3 * level]) >>> 0,
    );
  }

  legend(box, heat, mode) {
    const canvas = element("canvas", { width: "256", height: "1" });
    const context = canvas.getContext("2d"),
      image = context.createImageData(256, 1);
    new Uint32Array(image.data.buffer).set(this.palette(mode));
    context.putImageData(image, 0, 0);
    const ticks = element("div", { class: "ticks" });
    const place = (value, text) => {
      const tick = element("span", {}, text);
      tick.style.left = `${(this.level(mode, heat, value) / 255) * 100}%`;
      ticks.append(tick);
    };
    if (mode === "rate") {
      place(0, "0 %");
      for (const share of [0.02, 0.1, 0.25, 0.5, 1]) place(heat.top_rate * share, formatRate(heat.top_rate * share));
    } else {
      place(0, "0");
      for (const share of [0.3, 0.55, 0.8]) {
        const age = heat.least_age_s * Math.expm1(share * Math.log1p(heat.top_age_s / heat.least_age_s));
        place(age, formatTime(age));
      }
      place(heat.top_age_s, formatTime(heat.top_age_s));
    }
    box.replaceChildren(
      element(
        "div",
        { class: "what" },
        mode === "rate" ? "accessed in this share of the looks" : "at about this rate for",
      ),
      canvas,
      ticks,
    );
  }
}

// Axes, names of mappings, folds, events: all that is text or line around the pixels.
function drawHeatAxes(svg, view, frame, events) {
  svg.replaceChildren();
  const { heat } = view;
  const bottom = frame.top + view.height;
  const begin = heat.first_s + view.left * heat.step_s,
    end = heat.first_s + view.right * heat.step_s;
  const step = roundStep(end - begin, view.width / 84, true);
  for (const time of marks(begin, end, step)) {
    const x = frame.left + ((time - begin) / (end - begin)) * view.width;
    svg.append(drawing("line", { class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 4 }));
    const isLast = x > frame.left + view.width - 22;
    svg.append(
      drawing(
        "text",
        { x: isLast ? frame.left + view.width : x, y: bottom + 17, "text-anchor": isLast ? "end" : "middle" },
        formatMark(time, step),
      ),
    );
  }
  svg.append(
    drawing(
      "text",
      { x: frame.left + view.width / 2, y: bottom + 33, "text-anchor": "middle" },
      "time since the record began",
    ),
  );
  for (const event of events) {
    if (event.time_s < begin || event.time_s > end) continue;
    const x = frame.left + ((event.time_s - begin) / (end - begin)) * view.width;
    svg.append(drawing("line", { class: "event", x1: x, x2: x, y1: frame.top, y2: bottom }));
    const mark = drawing("path", { class: "event-mark", d: `M${x - 4} ${frame.top - 8}h8l-4 7z` });
    mark.append(drawing("title", {}, `${formatTime(event.time_s)}: ${event.text}`));
    svg.append(mark);
  }
  drawPieces(svg, view, frame);
  drawTargetNames(svg, view, frame);
}

function drawPieces(svg, view, frame) {
  const taken = [];
  const isFree = (top, bottom) => taken.every(([a, b]) => bottom <= a || top >= b);
  const write = (y, height, whole, strong) => {
    const text = fitted(whole, frame.left - 12);
    if (!strong && text !== whole) return; // half an address says nothing
    if (
      y - height / 2 < frame.top - 6 ||
      y + height / 2 > frame.top + view.height + 6 ||
      !isFree(y - height / 2, y + height / 2)
    )
      return;
    taken.push([y - height / 2, y + height / 2]);
    svg.append(
      drawing("text", { class: strong ? "strong" : "", x: frame.left - 8, y: y + 4, "text-anchor": "end" }, text),
    );
  };
  const shown = [];
  for (const band of view.bands) {
    for (const piece of band.pieces) {
      const bottom = frame.top + band.bottom - (Math.max(piece.first_row, view.low) - band.low) * band.row_px;
      const top = frame.top + band.bottom - (Math.min(piece.end_row, view.high) - band.low) * band.row_px;
      shown.push({ piece, top, bottom });
      svg.append(drawing("line", { class: "axis", x1: frame.left - 4, x2: frame.left, y1: bottom, y2: bottom }));
      svg.append(drawing("line", { class: "axis", x1: frame.left - 4, x2: frame.left, y1: top, y2: top }));
    }
    svg.append(
      drawing("line", {
        class: "axis",
        x1: frame.left - 1,
        x2: frame.left - 1,
        y1: frame.top + band.top,
        y2: frame.top + band.bottom,
      }),
    );
  }
  // The largest first: where there is no room for all names, theirs are the ones that help.
  for (const { piece, top, bottom } of [...shown].sort((a, b) => b.bottom - b.top - (a.bottom - a.top))) {
    if (bottom - top >= 6) write((top + bottom) / 2, 14, piece.name, true);
  }
  for (const { piece, top, bottom } of shown) {
    if (bottom - top < 64) continue;
    const [low, high] = visibleAddresses(view, piece);
    write(bottom - 7, 13, formatAddress(low), false);
    write(top + 7, 13, formatAddress(high), false);
  }
  for (let index = 1; index < view.bands.length; index += 1) {
    const { gap_bytes: gap } = view.bands[index].pieces[0];
    if (gap > 0n && view.fold_px >= 8)
      write(frame.top + view.bands[index].bottom + view.fold_px / 2, 13, `gap ${formatSize(gap)}`, false);
  }
}

// Of several targets each is named where its part of the map begins, at the top.
function drawTargetNames(svg, view, frame) {
  const highest = new Map();
  for (const band of view.bands)
    for (const piece of band.pieces) if (piece.target_name) highest.set(piece.target_name, band.top);
  for (const [name, top] of highest) {
    const text = drawing("text", { class: "strong", x: frame.left + 9, y: frame.top + top + 15 }, shorten(name, 40));
    svg.append(text);
    const { x, y, width, height } = text.getBBox();
    svg.insertBefore(
      drawing("rect", { class: "plate", x: x - 5, y: y - 2, width: width + 10, height: height + 4, rx: 3 }),
      text,
    );
  }
}

function visibleAddresses(view, piece) {
  const low = Math.floor(Math.max(piece.first_row, view.low)),
    high = Math.ceil(Math.min(piece.end_row, view.high)) - 1;
  return [view.heat.cell(low, 0).start, view.heat.cell(high, 0).end];
}
