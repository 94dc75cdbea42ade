// What is embedded in the page → typed arrays.

const ARRAY_TYPES = { u8: Uint8Array, u32: Uint32Array, u64: BigUint64Array, f64: Float64Array };
const NO_DATA = 255;
const TOP_CODE = 250;

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new ARRAY_TYPES[packed.type](await new Response(stream).arrayBuffer());
}

// Replaces every packed array below `value` by its numbers.
async function unpackAll(value) {
  if (value === null || typeof value !== "object") return value;
  if (typeof value.data === "string" && value.type in ARRAY_TYPES) return unpack(value);
  if (Array.isArray(value)) return Promise.all(value.map(unpackAll));
  const entries = await Promise.all(Object.entries(value).map(async ([key, one]) => [key, await unpackAll(one)]));
  return Object.fromEntries(entries);
}

// A heat map of its own for the page: codes, and what they stand for.
class Heat {
  constructor(parts) {
    const [first] = parts;
    Object.assign(this, { columns: first.columns, first_s: first.first_s, last_s: first.last_s });
    this.step_s = (this.last_s - this.first_s) / this.columns;
    this.top_rate = Math.max(...parts.map((part) => part.top_rate));
    this.top_age_s = Math.max(...parts.map((part) => part.top_age_s));
    this.least_age_s = Math.min(...parts.map((part) => part.least_age_s));
    this.parts = [];
    this.pieces = [];
    let row = 0;
    for (const part of parts) {
      this.parts.push({ ...part, row, ages: this.ageTable(part) });
      for (const piece of part.pieces) {
        const start = part.row_start[piece.first_row],
          end = part.row_end[piece.end_row - 1];
        const before = this.pieces.at(-1);
        const isSameTarget = before !== undefined && before.target === part.target;
        const gap = isSameTarget ? start - before.end : 0n;
        this.pieces.push({
          ...piece,
          start,
          end,
          target: part.target,
          target_name: parts.length > 1 ? part.target_name : "",
          gap_bytes: gap,
          is_apart: before !== undefined && (gap > 0n || !isSameTarget),
          first_row: piece.first_row + row,
          end_row: piece.end_row + row,
        });
      }
      row += part.rows;
    }
    this.rows = row;
    this.rates = Float64Array.from({ length: 256 }, (_, code) => (code === NO_DATA ? NaN : (code / TOP_CODE) ** 2));
  }

  ageTable({ least_age_s, top_age_s }) {
    const scale = Math.log1p(top_age_s / least_age_s) / TOP_CODE;
    return Float64Array.from({ length: 256 }, (_, code) =>
      code === NO_DATA ? NaN : least_age_s * Math.expm1(code * scale),
    );
  }

  partOf(row) {
    return this.parts.findLast((part) => part.row <= row);
  }
  pieceOf(row) {
    return this.pieces.find((piece) => row < piece.end_row);
  }

  // The mappings in some addresses, those with most bytes first: one row may hold several.
  namesIn({ names }, start, end) {
    const found = new Map();
    for (let index = 0; index < names.start.length; index += 1) {
      const low = names.start[index] > start ? names.start[index] : start,
        high = names.end[index] < end ? names.end[index] : end;
      if (low < high) {
        const name = names.texts[names.name[index]];
        found.set(name, (found.get(name) ?? 0n) + (high - low));
      }
    }
    return [...found].sort((a, b) => (b[1] > a[1] ? 1 : -1)).map(([name]) => name);
  }

  cell(row, column) {
    const part = this.partOf(row),
      piece = this.pieceOf(row),
      own = row - part.row;
    const at = own * this.columns + column;
    return {
      row,
      column,
      piece,
      names: this.namesIn(part, part.row_start[own], part.row_end[own]),
      start: part.row_start[own],
      end: part.row_end[own],
      rate: this.rates[part.rate[at]],
      age_s: part.ages[part.age[at]],
      begin_s: this.first_s + column * this.step_s,
      end_s: this.first_s + (column + 1) * this.step_s,
    };
  }
}
