// The data, and elements made of it. Text goes in as text: nothing here writes markup.

const data = JSON.parse(document.getElementById("data").textContent);

/** An element with attributes and children; what is null, undefined or false is left out. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The same for SVG. */
function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const byId = (id) => document.getElementById(id);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

/** A number for people: three or four digits, a power of ten where there would be many zeros. */
function short(value) {
  if (value === null || value === undefined) return "—";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3
    ? Number(value.toPrecision(3)).toExponential().replace("e+", "e")
    : String(Number(value.toPrecision(4)));
}

function seconds(value) {
  if (value < 59.95) return `${value.toFixed(1)} s`;
  return value < 5970 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${unit ? value.toFixed(1) : value} ${units[unit]}`;
}

/** `2026-01-31 12:00:00` of an RFC 3339 time, which is in UTC. */
const moment = (time) => time.slice(0, 19).replace("T", " ");

/** A label that fits so many letters. */
const cut = (text, letters) => (text.length > letters ? `${text.slice(0, letters - 1).trimEnd()}…` : text);

const words = { "up-to-date": "up to date", run: "would run", waits: "waits" };
