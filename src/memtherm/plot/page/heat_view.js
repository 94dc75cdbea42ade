// Which part of the heat map is shown, and where: columns and rows (both may be fractions) ↔ pixels.

const MAX_FOLD_PX = 11;
const LEAST_BAND_PX = 12; // a stack of a few pages beside gigabytes is still seen
const MIN_CELLS = 4;

class HeatView {
  constructor(heat) {
    this.heat = heat;
    this.width = 1;
    this.height = 1;
    this.past = [];
    this.show({ left: 0, right: heat.columns, low: 0, high: heat.rows });
  }

  get isWhole() {
    return this.left === 0 && this.right === this.heat.columns && this.low === 0 && this.high === this.heat.rows;
  }
  get range() {
    return { left: this.left, right: this.right, low: this.low, high: this.high };
  }

  resize(width, height) {
    this.width = Math.max(1, width);
    this.height = Math.max(1, height);
    this.arrange();
  }

  show({ left, right, low, high }) {
    [this.left, this.right] = HeatView.within(left, right, this.heat.columns);
    [this.low, this.high] = HeatView.within(low, high, this.heat.rows);
    this.arrange();
  }

  static within(first, last, all) {
    const span = Math.min(all, Math.max(last - first, Math.min(MIN_CELLS, all)));
    const begin = Math.min(Math.max(0, (first + last - span) / 2), all - span);
    // A hair from the border is the border: else "whole" would not be known again after zooming out.
    return [begin < 1e-6 ? 0 : begin, begin + span > all - 1e-6 ? all : begin + span];
  }

  remember() {
    this.past.push(this.range);
    if (this.past.length > 50) this.past.shift();
  }
  back() {
    const before = this.past.pop();
    if (before) this.show(before);
  }
  reset() {
    if (!this.isWhole) {
      this.remember();
      this.show({ left: 0, right: this.heat.columns, low: 0, high: this.heat.rows });
    }
  }

  // Zoom by `factor` (below 1: in) around a point in pixels.
  zoom(factor, x, y) {
    const column = this.columnAt(x),
      row = this.rowAt(y);
    this.show({
      left: column - (column - this.left) * factor,
      right: column + (this.right - column) * factor,
      low: row - (row - this.low) * factor,
      high: row + (this.high - row) * factor,
    });
  }

  move(columns, rows) {
    const shift = (first, last, by, all) => Math.min(Math.max(by, -first), all - last);
    const across = shift(this.left, this.right, columns, this.heat.columns),
      up = shift(this.low, this.high, rows, this.heat.rows);
    this.show({ left: this.left + across, right: this.right + across, low: this.low + up, high: this.high + up });
  }

  // Bands from the bottom up: each a run of rows that touch in memory; between two of them lies a fold.
  arrange() {
    const { pieces } = this.heat;
    this.bands = [];
    for (const piece of pieces) {
      const low = Math.max(piece.first_row, this.low),
        high = Math.min(piece.end_row, this.high);
      if (low >= high) continue;
      const band = this.bands.at(-1);
      if (band && !piece.is_apart) {
        band.high = high;
        band.pieces.push(piece);
      } else this.bands.push({ low, high, pieces: [piece] });
    }
    const folds = this.bands.length - 1;
    const fold = folds > 0 ? Math.min(MAX_FOLD_PX, (0.25 * this.height) / folds) : 0;
    this.fold_px = fold < 1 ? 0 : Math.floor(fold);
    this.share(this.height - folds * this.fold_px);
    let bottom = this.height;
    for (const band of this.bands) {
      band.bottom = bottom;
      band.top = bottom - (band.high - band.low) * band.row_px;
      bottom = band.top - this.fold_px;
    }
  }

  // The height for all bands, by their rows, but for small ones a little more.
  share(height) {
    const least = Math.min(LEAST_BAND_PX, (0.35 * height) / this.bands.length);
    let small = new Set(),
      rest = height,
      rows = this.high - this.low;
    for (;;) {
      const tooSmall = this.bands.filter((band) => !small.has(band) && ((band.high - band.low) * rest) / rows < least);
      if (tooSmall.length === 0 || small.size + tooSmall.length === this.bands.length) break;
      for (const band of tooSmall) {
        small.add(band);
        rest -= least;
        rows -= band.high - band.low;
      }
    }
    for (const band of this.bands) band.row_px = small.has(band) ? least / (band.high - band.low) : rest / rows;
  }

  xOf(column) {
    return ((column - this.left) / (this.right - this.left)) * this.width;
  }
  columnAt(x) {
    return this.left + (x / this.width) * (this.right - this.left);
  }

  yOf(row) {
    const band = this.bands.find((one) => row <= one.high) ?? this.bands.at(-1);
    return band.bottom - (row - band.low) * band.row_px;
  }

  // The row at a height; in a fold the border that is nearer.
  rowAt(y) {
    const band = this.bands.find((one) => y >= one.top - this.fold_px / 2) ?? this.bands.at(-1);
    return Math.min(band.high, Math.max(band.low, band.low + (band.bottom - y) / band.row_px));
  }

  // Rows to a pixel at a height, for moves of the hand and of the keys.
  rowsPerPx(y) {
    return 1 / (this.bands.find((one) => y >= one.top - this.fold_px) ?? this.bands.at(-1)).row_px;
  }

  isFold(y) {
    return !this.bands.some((band) => y >= band.top && y <= band.bottom);
  }
}
