// Numbers → text for people, as in memtherm's own tables; small helpers to make elements (text is only ever text).

function formatSize(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = Number(bytes),
    index = 0;
  while (Math.abs(value) >= 1023.95 && index < units.length - 1) {
    value /= 1024;
    index += 1;
  }
  if (index === 0) return `${value.toFixed(0)} B`;
  const size = Math.abs(value);
  return `${value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0)} ${units[index]}`;
}

// For axes, where all marks have one unit: [name, bytes].
function sizeUnit(most) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  const index = most < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(most) / 10));
  return [units[index], 1024 ** index];
}

function formatSizeIn(bytes, [name, unit], step) {
  const digits = step >= unit ? 0 : step * 2 >= unit ? 1 : 2;
  return bytes === 0 ? "0" : `${(bytes / unit).toFixed(digits)} ${name}`;
}

function formatTime(seconds) {
  if (seconds < 0) return `−${formatTime(-seconds)}`;
  if (seconds === 0) return "0 s";
  if (seconds < 0.9995e-3) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 0.9995) return `${Number((seconds * 1e3).toPrecision(3))} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 3599.5) {
    const whole = Math.round(seconds);
    return whole % 60 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${whole / 60} min`;
  }
  const minutes = Math.round(seconds / 60);
  return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
}

// A mark of a time axis whose marks are `step` apart: no digits that are the same for all.
function formatMark(seconds, step) {
  if (Math.abs(seconds) < step / 1000) return "0";
  if (step < 1) return `${seconds.toFixed(Math.min(6, Math.ceil(-Math.log10(step) - 1e-9)))} s`;
  const whole = Math.round(seconds);
  const hours = Math.floor(whole / 3600),
    minutes = Math.floor(whole / 60) % 60,
    rest = whole % 60;
  if (hours > 0 && step >= 60) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
  const pair = (number) => String(number).padStart(2, "0");
  if (hours > 0) return `${hours}:${pair(minutes)}:${pair(rest)}`;
  if (minutes > 0) return step >= 60 ? `${minutes} min` : `${minutes}:${pair(rest)} min`;
  return `${rest} s`;
}

function formatRate(rate) {
  const percent = rate * 100;
  if (percent > 0 && percent < 0.05) return "<0.1 %";
  return percent >= 9.95 || percent === 0 ? `${percent.toFixed(0)} %` : `${percent.toFixed(1)} %`;
}

// A moment of a run, as fine as its cells are.
function formatMoment(seconds, step) {
  const digits = step < 0.9995 ? Math.min(6, Math.ceil(-Math.log10(step) - 1e-9)) : 0;
  const rounded = Number(seconds.toFixed(digits));
  if (rounded < 60) return `${rounded.toFixed(digits)} s`;
  const hours = Math.floor(rounded / 3600),
    minutes = Math.floor(rounded / 60) % 60;
  const rest = (rounded % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest} h` : `${minutes}:${rest} min`;
}

const formatAddress = (address) => `0x${address.toString(16)}`;

function formatClock(epoch_s) {
  const date = new Date(epoch_s * 1000);
  const pair = (number) => String(number).padStart(2, "0");
  const clock = [date.getHours(), date.getMinutes(), date.getSeconds()].map(pair).join(":");
  return `${clock}.${Math.floor(date.getMilliseconds() / 100)}`;
}

// The smallest of 1, 2, 5 … (for times also 15, 30, 60 …) that leaves at most `most` marks.
function roundStep(span, most, isTime) {
  const least = span / Math.max(1, most);
  if (isTime && least > 0.5) {
    const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
    const found = steps.find((step) => step >= least);
    return found ?? 86400 * Math.ceil(least / 86400);
  }
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1e-9)));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= least * 0.999);
}

function marks(first, last, step) {
  const found = [];
  for (let index = Math.ceil(first / step - 1e-9); index * step <= last + step * 1e-9; index += 1)
    found.push(index * step);
  return found;
}

function sizeStep(top, most) {
  let step = 1;
  while (top / step > most) step *= 2;
  return step;
}

const byId = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function drawing(name, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes))
    made.setAttribute(key, typeof value === "number" ? Math.round(value * 100) / 100 : value);
  if (text !== null) made.textContent = text;
  return made;
}

// Cut in the middle: paths tell most at both ends.
function shorten(text, characters) {
  if (text.length <= characters) return text;
  if (characters < 4) return "";
  const end = Math.ceil((characters - 1) / 2);
  return `${text.slice(0, characters - 1 - end)}…${text.slice(text.length - end)}`;
}

const measuring = document.createElement("canvas").getContext("2d");

// Cut so that it is at most so wide, in the letters of the pictures.
function fitted(text, width_px) {
  measuring.font = `11.5px ${getComputedStyle(document.body).fontFamily}`;
  let letters = text.length;
  while (letters > 3 && measuring.measureText(shorten(text, letters)).width > width_px) letters -= 1;
  return shorten(text, letters);
}

function facts(list, rows) {
  list.replaceChildren(...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}
