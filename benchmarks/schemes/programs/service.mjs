// node service.mjs SOCKET: an HTTP service with a cache of pages in its own memory.
// GET /fill/N makes N pages of 4000 bytes; GET /item/I answers page I and counts it.
import http from "node:http";

const PAGE_BYTES = 4000;
const pages = new Map();
const asked = new Map();

function page(number) {
  let text = "";
  for (let line = 0; text.length < PAGE_BYTES; line++) {
    const value = (Math.imul(number * 97 + line, 2654435761) >>> 0) % 1000003;
    text += `<tr><td>${value}</td><td>${value & 1 ? "active" : "waiting"}</td><td>${value % 977}</td></tr>\n`;
  }
  // A buffer of its own for each page, outside of the garbage-collected heap.
  const bytes = Buffer.allocUnsafeSlow(PAGE_BYTES);
  bytes.write(text, "latin1");
  return bytes;
}

const server = http.createServer((request, response) => {
  const [, kind, number] = request.url.split("/");
  let body = "";
  if (kind === "fill") {
    for (let i = 0; i < Number(number); i++) pages.set(i, page(i));
    body = "filled";
  } else {
    const key = Number(number);
    asked.set(key, (asked.get(key) ?? 0) + 1);
    body = pages.get(key);
  }
  response.writeHead(200, { "Content-Length": body.length });
  response.end(body);
});
server.keepAliveTimeout = 0;
server.requestTimeout = 0;
server.listen(process.argv[2]);
