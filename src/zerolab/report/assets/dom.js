// Elements and data blocks. Text of a run reaches the page through text nodes and attributes alone.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (on* are listeners, class and dataset as usual) and children (strings become text). */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined));
  return node;
}

const byId = id => document.getElementById(id);

function readBlock(id) {
  return JSON.parse(byId(id).textContent);
}

/** A deflated block; its text leaves the page, so that it is not held twice. */
async function readDeflated(id) {
  const block = byId(id);
  const packed = atob(block.textContent);
  block.remove();
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

/** Says something to a screen reader. */
function announce(text) {
  byId("announce").textContent = text;
}

function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
  const link = el("a", {href: url, download: name});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Rows of cells as CSV. */
function toCsv(rows) {
  const cell = value => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map(row => row.map(cell).join(",") + "\n").join("");
}

/** A labelled <select>; options are [value, text]. */
function choice(label, options, value, onchange) {
  const select = el("select", {onchange: event => onchange(event.target.value)},
    options.map(([key, text]) => el("option", {value: key, selected: String(key) === String(value)}, text)));
  return el("label", {class: "control"}, el("span", {}, label), select);
}

/** A labelled checkbox. */
function toggle(label, checked, onchange) {
  return el("label", {class: "control check"},
    el("input", {type: "checkbox", checked, onchange: event => onchange(event.target.checked)}), el("span", {}, label));
}
